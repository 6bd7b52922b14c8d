# Everything starts here: needs python3.11 (or newer) and make. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
ENV := $(VENV)/.installed
# Options of pip stand before the requirements, for every call alike.
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt $(PIP_ARGS)
TORCH := $(shell sed -n 's/^torch==/torch==/p' constraints.txt)
CODE := src tests examples benchmarks docs

.PHONY: help env demo test check lint format coverage bench bench-serve soak soak-ci system clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12
	@echo
	@echo "PIP_ARGS='...'  options for every pip call, e.g. --extra-index-url URL"
	@echo "PYTHON=...      interpreter of the environment (now $(PYTHON))"
	@echo "V=1 T=FILE      for test: verbose, one file only"

# .installing marks an installation in progress: where it is still there, the last one was killed
# half-way, and what it left cannot be trusted. A pip that fails by itself leaves things whole.
$(ENV): pyproject.toml constraints.txt
	@if [ -e $(VENV)/.installing ]; then echo "environment: the last installation was cut short; beginning anew"; rm -rf $(VENV); fi
	@mkdir -p $(VENV) && touch $(VENV)/.installing && rm -f $(ENV)
	@echo "environment 1/3: $(VENV) with $(PYTHON)"
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@echo "environment 2/3: $(TORCH) (the largest package)"
	@$(PIP) "$(TORCH)" || { rm -f $(VENV)/.installing; exit 1; }
	@echo "environment 3/3: ganglion and what it needs"
	@$(PIP) -e ".[dev]" || { rm -f $(VENV)/.installing; exit 1; }
	@touch $(ENV) && rm -f $(VENV)/.installing
	@echo "environment: ready"

env: $(ENV) ## make the environment .venv, from python3 and pip alone

demo: $(ENV) ## train, judge, export and report a first policy (a minute)
	@run=runs/control/demo-$$(date +%Y%m%d-%H%M%S); \
	$(BIN)/ganglion --home . train control --preset quick --out $$run; \
	echo "The run is in $$run, its report in $(CURDIR)/$$run/report/report.html"

test: $(ENV) ## run the tests (V=1 verbose, T=FILE one file)
	@$(BIN)/python -m pytest -m "not soak" $(if $(V),-v) $(if $(T),$(T),-n 2)

check: lint ## lint, strict types, the architecture's rules
	@$(BIN)/python -m mypy
	@$(BIN)/python -m pytest -q tests/test_architecture.py

lint: $(ENV) ## ruff: rules and formatting
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/ruff format --check $(CODE)

format: $(ENV) ## put the code into form
	@$(BIN)/ruff check --fix $(CODE)
	@$(BIN)/ruff format $(CODE)
	@$(BIN)/python docs/make_settings.py

coverage: $(ENV) ## the tests with a table of what they reach
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest -m "not soak"
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report --skip-covered --sort=cover

bench: $(ENV) ## measure speed, then quality (about 20 minutes)
	@$(BIN)/python benchmarks/bench.py
	@$(BIN)/python benchmarks/quality.py

bench-serve: $(ENV) ## measure the server beside FastAPI and Flask (4 minutes; BENCH_ARGS=--realtime)
	@$(BIN)/python benchmarks/serving.py $(BENCH_ARGS)

soak: $(ENV) ## the long proofs: kills, damaged files, a full disk
	@GANGLION_SOAK=full $(BIN)/python -m pytest -s benchmarks/soak.py benchmarks/soak_serving.py

soak-ci: $(ENV) ## the same proofs with smaller counts
	@GANGLION_SOAK=ci $(BIN)/python -m pytest -s benchmarks/soak.py benchmarks/soak_serving.py

system: ## optional Debian packages (as root): a compiler for train.compile=true
	apt-get update
	apt-get install -y --no-install-recommends g++ python3-venv python3-dev

clean: ## remove caches and build products; runs/, datasets/ and .venv stay
	@rm -rf build dist htmlcov .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find src tests examples benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +
