# Two commands make everything work from a clean clone: `make search` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
STUDY ?= digits
# torch wants one thread a process here: the tests run in two processes, and small nets do not gain from more
export OMP_NUM_THREADS ?= 1
export RAY_USAGE_STATS_ENABLED ?= 0
export MLFLOW_DISABLE_TELEMETRY ?= true

.PHONY: help install search test test-slow check format docs clean

help:
	@echo "make search      search the activations of a small network on real data (digits), end to end"
	@echo "make test        run the tests"
	@echo "make test-slow   run the tests that take minutes"
	@echo "make check       lint, format, types, import layers, docs in step with the code"
	@echo "make format      format the code"
	@echo "make docs        write the generated parts of the docs anew"

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

install: $(INSTALLED)

search: $(INSTALLED)
	$(BIN)/nasact search $(STUDY)

test: $(INSTALLED)
	$(BIN)/python -m pytest -m "not slow" -n 2

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(INSTALLED)
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) build dist *.egg-info
