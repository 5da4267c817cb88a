# Every target sets up what it needs from nothing, and can be repeated.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.ready

.PHONY: demo test test-slow lint check clean

# More for pytest: `make test PYTEST=--durations=40`
PYTEST ?=

demo: $(STAMP)            ## everything from nothing: the quickstart through a local Prefect server
	$(BIN)/python -m infra.local.demo

# Files side by side, one process a core: more than four would take memory and end no sooner. They go in their order, since
# xdist's own, by the number of tests, would leave the longest file for last.
test: $(STAMP)            ## everything from nothing: the tests that take minutes in all
	$(BIN)/python -m pytest -m "not slow" -n logical --maxprocesses=4 --dist loadfile --no-loadscope-reorder $(PYTEST)

# In two processes, since much of their time is waiting. Those that share a Prefect server and a run of the whole line stay
# together; so do those of a file.
test-slow: $(STAMP)       ## the other tests: servers, Ray, ranks, real weights
	$(BIN)/python -m pytest -m slow -n 2 --dist loadscope --no-loadscope-reorder $(PYTEST)

lint: $(STAMP)            ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test test-slow  ## what CI runs

# torch first: deepspeed's build looks for it. The lock is whole for every Python that the README names, so nothing but
# torch's own CUDA is resolved; `pip check` says whether that is still true.
PIP := $(BIN)/python -m pip --disable-pip-version-check
$(STAMP): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install -q $$($(BIN)/python infra/torch_index.py) $(shell grep -E '^(torch|setuptools|wheel|ninja|numpy)==' requirements.lock)
	$(PIP) install -q --no-build-isolation --no-deps -r requirements.lock
	$(PIP) install -q --no-build-isolation --no-deps -e .
	$(PIP) check
	touch $@

clean:                    ## remove the environment; the store stays
	rm -rf .venv
