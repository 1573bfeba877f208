# Install the package into .venv and use it there; `make` alone lists the targets.
# VENV=path/to/env installs into an environment that exists, and keeps its PyTorch.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-data test-long test-oldest test-cluster test-browser test-gpu lint bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.handwriting-core ## set up, then compare four optimizers on bundled digits
	$(BIN)/python -m handwriting.run -m data=digits optim=sgd,adam,adagrad,adadelta

test: $(VENV)/.handwriting-dev ## set up, then run the tests; those on real data skip without HANDWRITING_DATA
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test-data: $(VENV)/.handwriting-dev ## the tests on real data, found through HANDWRITING_DATA
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m real_data

test-long: $(VENV)/.handwriting-dev ## killed sweeps, jobs in processes of their own, notebooks: minutes (LONG=tests/long/test_ddp.py)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m long $(LONG)

test-oldest: .venv-oldest ## the tests on the oldest packages that pyproject.toml allows; the newest are what .venv has
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -n 2 --dist worksteal

test-cluster: $(VENV)/.handwriting-dev ## a sweep on a SLURM that is started for it; needs root, slurm-wlm and munge
	$(BIN)/python -m pytest -m cluster

test-browser: $(VENV)/.handwriting-dev ## someone writes on the page, in Chromium (apt-get install chromium); skips without it
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser

test-gpu: $(VENV)/.handwriting-dev ## the tests on a CUDA device; skips without one
	$(BIN)/python -m pytest -m gpu tests/gpu

lint: $(VENV)/.handwriting-dev ## style (ruff), types (pyright) and the direction of imports (import-linter)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-cache

bench: $(VENV)/.handwriting-dev ## speed beside other ways to train, as ratios; start, memory and scale (BENCH="--only steps")
	$(BIN)/python tests/benchmarks $(BENCH)

clean: ## remove .venv and caches; outputs/ stays
	rm -rf .venv .venv-oldest dist build .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Python 3.11 to 3.13 is needed, but {sys.executable} is {v[0]}.{v[1]}: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.handwriting-core: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.handwriting-dev: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.handwriting-core

.venv-oldest: pyproject.toml
	$(PYTHON) -m venv $@
	$@/bin/pip install --quiet --disable-pip-version-check uv
	$@/bin/uv pip install --quiet --python $@/bin/python --resolution lowest-direct -e '.[dev]'
	@touch $@
