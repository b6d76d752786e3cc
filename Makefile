# make demo: raw videos -> trained model -> report.   make test: everything that is checked.
# All make .venv from constraints.txt when it is missing or stale; nothing else has to be done before.

SHELL := /bin/bash
BIN := .venv/bin
# not that of .venv itself, which stands first in an activated shell and is removed before it is made anew
PYTHON ?= $(or $(shell type -ap python3.11 | grep -v '^$(CURDIR)/$(BIN)/' | head -1),python3)
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

# What make fast runs: what one breaks while editing, and what is checked in seconds.
FAST := tests/stiv_model/network tests/stiv_model/diffusion tests/tasks/storage tests/tasks/scores tests/flows/test_params.py tests/test_repository.py

.PHONY: help demo learn evaluate views test tests test-long fast setup vbench-env check lint types fix docs lock clean

# A target is in the help if a comment of two hashes stands behind it.
help:
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r target what; do printf '%-16s%s\n' "$$target" "$$what"; done

demo: $(STAMP)  ## raw videos -> trained model -> reports/report.html, through a Prefect server of its own
	@$(BIN)/python -m flows demo

learn: $(STAMP)  ## the same with an hour's training, in learn/ -> learn/reports/report.html and the model, learn/pipelines/shapes
	@$(BIN)/python -m flows learn

# From arrays, against the reference that comes with the package: tasks/evaluation/reference.
evaluate: $(STAMP)  ## FVD and KVD of the demo's videos with their floor, and PSNR, SSIM and LPIPS -> reports/fvd/card.html
	@test -f data/samples/samples.json || { echo "make: data/samples has no videos: make demo makes them"; exit 1; }
	$(BIN)/python -m flows evaluate --samples data/samples --metrics fvd kvd psnr ssim lpips --out reports/fvd

# From checkpoints/stiv, on the procedural set: views/stages.yaml.
views: $(STAMP)  ## multi-view: renders, trains and measures on objects kept apart -> checkpoints/views, reports/views/views.md
	@test -d checkpoints/stiv || { echo "make: checkpoints/stiv is not here, which the training starts from: make demo makes it"; exit 1; }
	$(BIN)/python -m flows pipeline --stages views_corpus views_latents views views_table

fix: $(STAMP)  ## format, and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# One thread per process: two processes with a thread per core each cost twice the CPU time.
fast: $(STAMP)  ## the tests of the inner loop, a minute
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m 'not long and not road and not docs' -k 'not compile' $(FAST)

check: lint types  ## formatting, types, architecture, spelling; no tests

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/codespell

types: $(STAMP)
	$(BIN)/mypy

# Types are checked while the first tests run: mypy has one thread, and half of the machine would wait for it.
test: lint  ## check, and all tests, the whole road among them
	@$(MAKE) --no-print-directory -j 2 types tests

tests:
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 40

test-long: $(STAMP)  ## variants of tests that take long, Ray and TransNetV2 among them
	$(UV) -e '.[dev,ray,transnet]'
	$(BIN)/python -m pytest -m long

docs: $(STAMP)  ## the site of documentation, site/index.html: offline, and every link checked
	NO_MKDOCS_2_WARNING=1 PYTHONWARNINGS=ignore $(BIN)/mkdocs build --strict
	@echo "site/index.html; with search: $(BIN)/python -m http.server --bind 127.0.0.1 --directory site"

setup: $(STAMP)  ## only the environment, .venv

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

# What a fresh environment of all extras holds. Versions that are pinned stay, unless they are asked to move: the build of torch
# (+cpu, +cu130) is the machine's own, so its local version is cut off.
lock: PINS = $(if $(UPGRADE),,-c constraints.txt)
lock:  ## constraints.txt from a fresh environment; UPGRADE=1 moves every version to its newest
	@work=$$(mktemp -d) && trap 'rm -rf "$$work"' EXIT && $(PYTHON) -m venv "$$work/venv" && \
	  "$$work/venv/bin/python" -m pip install --no-compile -q $(PINS) 'torch==2.13.0' uv && \
	  "$$work/venv/bin/uv" pip install --python "$$work/venv/bin/python" $(PINS) -e '.[dev,ray,transnet]' num2words && \
	  "$$work/venv/bin/uv" pip install --python "$$work/venv/bin/python" $(PINS) --no-deps torchvision && \
	  "$$work/venv/bin/python" -m pip freeze --all --exclude-editable \
	    | sed -E -e '/^(pip|stiv-platform)[=@ ]/d' -e 's/^(torch==[^+]*)\+.*/\1/' | LC_ALL=C sort -f > "$$work/constraints.txt" && \
	  cp "$$work/constraints.txt" constraints.txt && { git diff --stat -- constraints.txt || true; }

# VBench's own environment. detectron2 is compiled, and only four dimensions need it.
VBENCH := infra/vbench/.venv
vbench-env: $(STAMP)  ## VBench's environment, infra/vbench/.venv, for a GPU with CUDA 12.1; DETECTRON2=1 compiles detectron2 as well
	$(BIN)/uv venv --clear --python 3.10 $(VBENCH)
	$(BIN)/uv pip install --python $(VBENCH)/bin/python --require-hashes -r infra/vbench/requirements.lock
	$(BIN)/uv pip install --python $(VBENCH)/bin/python --no-deps --no-build-isolation -r infra/vbench/vbench.txt $(if $(DETECTRON2),-r infra/vbench/detectron2.txt)

clean:  ## remove what the pipeline made (data/, checkpoints/, reports/), not its cache
	rm -rf data checkpoints reports .cache/times.json
