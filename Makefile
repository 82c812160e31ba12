# One entry for people and for CI. Every target prepares .venv by itself, from pinned
# requirements with hashes; a second call finds it ready and starts at once.

.DEFAULT_GOAL := help
SHELL := /bin/bash

# The distribution's Python first: it is built with profile-guided optimisation, which a self-built
# one often lacks, and is a sixth faster (`make bench`).
PYTHON ?= $(shell /usr/bin/python3.11 -c 'import ensurepip, venv' 2>/dev/null && echo /usr/bin/python3.11 || \
	for name in python3.11 python3.12 python3.13 python3.14 python3; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$name" && break; done)
UV ?= uv
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
SOURCES := src tests tools bench conformance

.PHONY: help run test check conformance bench soak fix lock clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 20

run: $(VENV)/.gateway ## the demo: simulated provider, gateway, scripted agents; keeps serving
	@exec $(BIN)/clew demo

test: $(VENV)/.dev ## all tests; TESTS="tests/core -k name" for some of them
	@exec $(BIN)/python -m pytest $(TESTS)

check: $(VENV)/.dev ## style, types, layers, sizes, words
	@echo "check: ruff"
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check --quiet $(SOURCES)
	@echo "check: mypy --strict"
	@$(BIN)/mypy
	@echo "check: layers"
	@$(BIN)/lint-imports --no-cache --no-logo
	@echo "check: sizes"
	@$(BIN)/python tools/check_sizes.py
	@echo "check: words"
	@$(BIN)/python tools/check_words.py

conformance: $(VENV)/.dev ## real agents against the simulator (needs npm); ARGS="--agent codex"
	@$(BIN)/python -m conformance.run $(ARGS); agents=$$?; \
	$(BIN)/python -m conformance.under_run $(ARGS); below=$$?; \
	$(BIN)/python -m conformance.budget $(ARGS); spent=$$?; \
	$(BIN)/python -m conformance.plugin $(ARGS); plugin=$$?; \
	$(BIN)/python -m conformance.run_agents $(ARGS); run=$$?; exit $$((agents | below | spent | plugin | run))

bench: $(VENV)/.dev ## processor time per request and per chunk beside nginx; ARGS="--rounds 1"
	@exec $(BIN)/python -m bench.run $(ARGS)

soak: $(VENV)/.dev ## what the promises say in figures; ARGS="--only model", MINUTES=30
	@exec $(BIN)/python tools/soak.py $(if $(MINUTES),--minutes $(MINUTES)) $(ARGS)

fix: $(VENV)/.dev ## format, and repair what ruff can repair
	@$(BIN)/ruff check --fix $(SOURCES)
	@$(BIN)/ruff format $(SOURCES)

LOCK := pip compile --generate-hashes --universal --python-version 3.11 --quiet \
	--no-emit-index-url --no-emit-find-links --no-header --no-annotate

lock: ## pin requirements/*.in again (needs uv); ARGS="--upgrade" for newer versions
	@cd requirements && $(UV) $(LOCK) $(ARGS) gateway.in -o gateway.txt
	@cd requirements && $(UV) $(LOCK) $(ARGS) dev.in -o dev.txt
	@echo "lock: requirements/gateway.txt and requirements/dev.txt are written"

clean: ## remove .venv and all caches
	@rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis bench/out

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "make: Python 3.11 or newer is needed and none was found;" \
		"name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo \
		"make: $(PYTHON) is not Python 3.11 or newer; name one that is: make PYTHON=python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo "make: $(PYTHON) cannot make a" \
		"virtual environment; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@echo "make: creating $(VENV) with $$("$(PYTHON)" --version)"
	@"$(PYTHON)" -m venv $(VENV)

# The stamp is touched last, so that an install that broke off is done again. dev contains gateway.
$(VENV)/.gateway: requirements/gateway.txt pyproject.toml | $(BIN)/python
	@echo "make: installing requirements/gateway.txt (about 20 s, once)"
	@$(PIP) install --require-hashes -r requirements/gateway.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt requirements/gateway.txt pyproject.toml | $(BIN)/python
	@echo "make: installing requirements/dev.txt (about 70 s, once)"
	@$(PIP) install --require-hashes -r requirements/dev.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $(VENV)/.gateway $@
