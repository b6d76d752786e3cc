# make demo: raw videos -> trained model -> report.   make test: everything that is checked.
# Both make .venv from constraints.txt when it is missing or stale; nothing else has to be done before.

SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || echo python3)
BIN := .venv/bin
STAMP := .venv/made-from-constraints
UV := $(BIN)/uv pip install --python $(BIN)/python -c constraints.txt
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export GX_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1
export ORT_DISABLE_TELEMETRY := 1
# Modules are compiled when they are first imported, not all on installing, which takes a third of the installation's time.
# Where Python is told not to keep what it compiled, every stage would do it again, for half of its time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-long setup check clean

help:
	@echo "make demo    raw videos -> trained model -> reports/report.html, through a Prefect server of its own"
	@echo "make test    formatting, types, architecture, and the tests, the whole road among them"
	@echo "make test-long  variants of tests that take long"
	@echo "make check   the quick half of it, without tests"
	@echo "make setup   only the environment, .venv"
	@echo "make clean   remove what the pipeline made (data/, checkpoints/, reports/), not its cache"

setup: $(STAMP)

$(STAMP): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
	  echo "make: $(PYTHON) is not Python 3.11, which the pinned packages need: install it, or name it: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "== making .venv from constraints.txt (a minute or a few, once)"
	@start=$$(date +%s); \
	  rm -rf .venv && $(PYTHON) -m venv .venv && \
	  $(BIN)/python -m pip install --no-compile --progress-bar on -q -c constraints.txt torch==2.13.0 uv && \
	  echo "== torch is there after $$(( $$(date +%s) - start )) s; now the rest" && \
	  { $(UV) -e '.[dev]' || { \
	    echo "== uv could not (see above): the same with pip, which takes three times as long"; \
	    $(BIN)/python -m pip install --no-compile --progress-bar on -q -c constraints.txt -e '.[dev]'; }; } && \
	  echo "== .venv is ready after $$(( $$(date +%s) - start )) s"
	@touch $(STAMP)

demo: $(STAMP)
	@$(BIN)/python -m flows demo

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/codespell

test: check
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-long: $(STAMP)
	$(UV) -e '.[dev,ray,transnet]'
	$(BIN)/python -m pytest -m long

clean:
	rm -rf data checkpoints reports .cache/times.json
