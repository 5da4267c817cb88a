# Every target sets up what it needs from nothing, and can be repeated.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.ready

.PHONY: demo test lint check clean

demo: $(STAMP)            ## everything from nothing: the quickstart through a local Prefect server
	$(BIN)/python -m flows.demo

test: $(STAMP)            ## everything from nothing: all tests
	$(BIN)/python -m pytest

lint: $(STAMP)            ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test          ## what CI runs

# torch first: deepspeed's build looks for it, and another version would bring gigabytes of CUDA.
$(STAMP): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check $(shell grep -E '^(torch|setuptools|wheel|ninja|numpy)==' requirements.lock)
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-build-isolation --no-deps -r requirements.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-build-isolation --no-deps -e .
	touch $@

clean:                    ## remove the environment; the store stays
	rm -rf .venv
