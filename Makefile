PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
SYSTEM := $(VENV)/.system

# Debian packages of tests that need real programs; without root these tests are skipped and say so.
APT    := munge slurmctld slurmd slurm-client shellcheck chromium

# Two files at a time, each on one core: small tensors gain nothing from threads.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --no-loadscope-reorder

.PHONY: help demo test check fast docs lock clean

help:               ## this list
	@sed -n 's/^\([a-z]*\):[^#]*## /\1\t/p' Makefile | expand -t 10

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

$(SYSTEM): Makefile | $(STAMP)
	@if dpkg --status $(APT) > /dev/null 2>&1; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	  apt-get update --quiet=2 && DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes --no-install-recommends $(APT); \
	else echo "for all tests: apt-get install $(APT)"; fi
	touch $@

demo: $(STAMP)      ## the main job on five photographs, offline
	$(BIN)/saliency-prompt demo --out demo

check: $(STAMP)     ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	mkdir -p .mypy_link && ln -sfn .. .mypy_link/saliency_prompt
	MYPYPATH=.mypy_link $(BIN)/mypy -p saliency_prompt

fast: check         ## checks and the fast tests
	$(PYTEST) -m "not slow and not gpu and not cluster"

test: check $(SYSTEM)  ## everything that runs without a GPU
	$(PYTEST) -m "not gpu"

docs: $(STAMP)      ## the documentation's site, in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

lock: $(STAMP)      ## constraints.txt anew, of what is installed
	@sed -n '/^#/p' constraints.txt > constraints.new
	$(BIN)/python -m pip freeze --exclude-editable >> constraints.new
	mv constraints.new constraints.txt

clean:              ## removes what these make
	rm -rf $(VENV) .mypy_link .mypy_cache .pytest_cache .ruff_cache *.egg-info build dist demo
