# Two commands make everything work from a clean clone: `make search` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
MODELS_INSTALLED := $(VENV)/.installed-models
STUDY ?= digits
DATA ?= data
# One thread of torch per process: the tests run in two processes, and small networks gain nothing from more threads.
export OMP_NUM_THREADS ?= 1
export RAY_USAGE_STATS_ENABLED ?= 0
export MLFLOW_DISABLE_TELEMETRY ?= true

.PHONY: help install search test test-slow test-models bench bench-accuracy genotype-table bench-search bench-derived check format docs clean

help:
	@echo "make search      search the activations of a small network on real data (digits), end to end"
	@echo "make test        run the tests"
	@echo "make test-slow   run the tests that take minutes"
	@echo "make test-models compare the supernet with the model, for the models of torchvision, timm and transformers"
	@echo "make check       run lint, format check, types and import layers, and compare the generated docs with the code"
	@echo "make format      format the code"
	@echo "make docs        regenerate the generated parts of the docs"
	@echo "make bench       measure the mixture op and surgery (a few minutes on a quiet machine), into docs/performance.md"
	@echo "                 and docs/surgery.md"
	@echo "make bench-accuracy DATA=DIR   compare the accuracy of the kernels, on Fashion-MNIST in DIR (20 minutes)"
	@echo "make genotype-table DATA=DIR   train all 625 genotypes of a small network, on MNIST in DIR (20 minutes)"
	@echo "make bench-search DATA=DIR [ONLY=NAME]    rank the strategies by that table, on MNIST in DIR (40 minutes;"
	@echo "                 3 minutes for one strategy NAME) and update docs/ranking.md"
	@echo "make bench-derived DATA=DIR [ONLY=NAME]   compare derived networks with the best single function, on"
	@echo "                 Fashion-MNIST and CIFAR-10 in DIR (2 hours), and update docs/ranking.md"
	@echo "The benchmarks that train networks continue after an interruption."

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

# timm and transformers, which only `make test-models` needs
$(MODELS_INSTALLED): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,models]"
	@touch $@

install: $(INSTALLED)

search: $(INSTALLED)
	$(BIN)/nasact search $(STUDY)

test: $(INSTALLED)
	$(BIN)/python -m pytest -m "not slow and not models" -n 2

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m "slow and not models"

# groups of models that need most of the memory run in one of the two processes
test-models: $(MODELS_INSTALLED)
	$(BIN)/python -m pytest -m models -n 2 --dist loadgroup tests/zoo

# the targets in docs/performance.md are for two cores
bench: export OMP_NUM_THREADS := 2
bench: $(INSTALLED)
	$(BIN)/python benchmarks/mixture.py --json benchmarks/results/mixture.json
	$(BIN)/python benchmarks/steps.py --json benchmarks/results/steps.json
	$(BIN)/python benchmarks/first_call.py --json benchmarks/results/first_call.json
	$(BIN)/python benchmarks/table_errors.py --json benchmarks/results/table_errors.json
	$(BIN)/python benchmarks/surgery.py --threads 1 --json benchmarks/results/surgery.json
	$(BIN)/python benchmarks/update_docs.py

bench-accuracy: $(INSTALLED)
	$(BIN)/python benchmarks/kernel_accuracy.py --data $(DATA) --json benchmarks/results/kernel_accuracy.json
	$(BIN)/python benchmarks/update_docs.py

genotype-table: $(INSTALLED)
	PYTHONPATH=benchmarks $(BIN)/python -m genotypes.build_table --data $(DATA) --seeds 4

bench-search: $(INSTALLED)
	$(BIN)/python benchmarks/search.py --data $(DATA) $(if $(ONLY),--only $(ONLY)) --json benchmarks/genotypes/ranking.json
	$(BIN)/python benchmarks/update_docs.py

bench-derived: $(INSTALLED)
	$(BIN)/python benchmarks/derived.py --data $(DATA) $(if $(ONLY),--only $(ONLY)) --json benchmarks/results/derived.json
	$(BIN)/python benchmarks/update_docs.py

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
