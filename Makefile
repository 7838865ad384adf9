# Two commands make everything work from a clean clone: `make search` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
STUDY ?= digits
DATA ?= data
# torch wants one thread a process here: the tests run in two processes, and small nets do not gain from more
export OMP_NUM_THREADS ?= 1
export RAY_USAGE_STATS_ENABLED ?= 0
export MLFLOW_DISABLE_TELEMETRY ?= true

.PHONY: help install search test test-slow bench bench-accuracy genotype-table bench-search bench-derived check format docs clean

help:
	@echo "make search      search the activations of a small network on real data (digits), end to end"
	@echo "make test        run the tests"
	@echo "make test-slow   run the tests that take minutes"
	@echo "make bench       measure the mixture op (a few minutes on a quiet machine) and write docs/performance.md"
	@echo "make bench-accuracy DATA=DIR   whether the table costs accuracy, on Fashion-MNIST in DIR (about 20 minutes)"
	@echo "make genotype-table DATA=DIR   train every genotype of a small network, on MNIST in DIR (20 minutes, restartable)"
	@echo "make bench-search DATA=DIR   how good each strategy's genotypes are among all 625, on MNIST in DIR (restartable)"
	@echo "make bench-derived DATA=DIR   what a derived network keeps, on Fashion-MNIST and CIFAR-10 in DIR (hours, restartable)"
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

# the targets are for two cores
bench: export OMP_NUM_THREADS := 2
bench: $(INSTALLED)
	$(BIN)/python benchmarks/mixture.py --json benchmarks/results/mixture.json
	$(BIN)/python benchmarks/steps.py --json benchmarks/results/steps.json
	$(BIN)/python benchmarks/first_call.py --json benchmarks/results/first_call.json
	$(BIN)/python benchmarks/errors.py --json benchmarks/results/errors.json
	$(BIN)/python benchmarks/page.py

bench-accuracy: $(INSTALLED)
	$(BIN)/python benchmarks/accuracy.py --data $(DATA) --json benchmarks/results/accuracy.json
	$(BIN)/python benchmarks/page.py

genotype-table: $(INSTALLED)
	PYTHONPATH=benchmarks $(BIN)/python -m genotypes.make --data $(DATA) --seeds 4

bench-search: $(INSTALLED)
	$(BIN)/python benchmarks/search.py --data $(DATA) --json benchmarks/genotypes/ranking.json

bench-derived: $(INSTALLED)
	$(BIN)/python benchmarks/derived.py --data $(DATA) --json benchmarks/results/derived.json
	$(BIN)/python benchmarks/page.py

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
