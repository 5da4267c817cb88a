# Every target sets up what it needs from nothing, and can be repeated.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.ready

.PHONY: demo test lint check clean

demo: $(STAMP)            ## everything from nothing: the quickstart through a local Prefect server
	$(BIN)/python -m infra.local.demo

test: $(STAMP)            ## everything from nothing: all tests
	$(BIN)/python -m pytest

lint: $(STAMP)            ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test          ## what CI runs

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
