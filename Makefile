# The environment lies in .venv; pip's own configuration decides where packages come from.
PYTHON ?= python3
BIN := .venv/bin
.DEFAULT_GOAL := help

.PHONY: help env record test long chaos check format ui clean

help:  ## what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

.venv/.ready: pyproject.toml constraints.txt
	@echo "making the environment in .venv (about 2 minutes, 2 GB)"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -qq -c constraints.txt -e '.[dev]'
	@touch $@

env: .venv/.ready  ## the environment

record: env  ## the whole main job: corpus, 3 seeds, SLOT sweep, MLflow, a verified record folder
	$(BIN)/python sweeps/slot_sweep.py

test: env  ## the tests
	$(BIN)/python -m pytest -q -n 2 --ignore tests/flow
	$(BIN)/python -m pytest -q -n 2 --dist loadfile tests/flow

long: env  ## tests that take minutes each: a whole cluster with S3 and PostgreSQL, searches, races, hung gangs
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m long tests

chaos: env  ## 200 random kills and faults, hours: what must hold after each, docs/reliability.md
	$(BIN)/python -m tests.chaos --strikes 200

check: env  ## format, lint, types, import contracts
	$(BIN)/ruff format --check model service sweeps tests
	$(BIN)/ruff check model service sweeps tests
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: env  ## put the code in shape
	$(BIN)/ruff format model service sweeps tests
	$(BIN)/ruff check --fix model service sweeps tests

ui: env  ## MLflow's pages about every run
	$(BIN)/caddie ui

clean:  ## remove the environment
	rm -rf .venv
