# Everything runs in .venv, which `make install` makes; each other target makes it first where it is missing or old.
# `make install PYTHON=/path/to/python3.12` names the interpreter; otherwise it is the first that is new enough.

PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: help install demo test torture bench lint format contracts clean

help:
	@echo "make demo         the demonstration: a simulated marketplace, broker, worker, sidecar and a page; Ctrl-C ends it"
	@echo "make demo PORT=8081   the same with the page on another port than 8080"
	@echo "make demo HEADLESS=1   the same without a person: plays 300 visits and prints a table"
	@echo "make install      .venv with everything"
	@echo "make test         the tests"
	@echo "make torture      two workers on Apache Kafka (KAFKA_HOME) killed and stopped under load; WITH='--seed 2' for flags"
	@echo "make bench        the benchmarks, to build/bench.json; ONLY=name for one; ONLY=soak for ten minutes of load"
	@echo "make lint         formatting, style, types and the laws of the house"
	@echo "make format       format the code"
	@echo "make contracts    write docs/schemas and docs/openapi.json from the types"
	@echo "make clean        remove what was built, .venv too"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml setup.py $(wildcard models/*.hpp) models/kernel.cpp serving/lists.cpp models/training/skip_gram.cpp constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or later on the PATH; name one with PYTHON=" >&2; exit 1; }
	@echo "installing into .venv: a minute or two"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[train,dev]'
	@touch $@

demo: install
	$(BIN)/insession demo $(if $(HEADLESS),--headless) $(if $(PORT),--port $(PORT))

test: install
	$(BIN)/python -m pytest

torture: install
	$(BIN)/python -m tests.torture $(WITH)

bench: install
	$(BIN)/python -m tests.benchmarks $(ONLY)

lint: install
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

contracts: install
	$(BIN)/python -m insession.contracts

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
