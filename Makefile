PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
SYSTEM := $(VENV)/.system

# Debian packages of tests that need real programs; without root these tests are skipped and say so.
APT    := munge slurmctld slurmd slurm-client shellcheck chromium

# Two files at a time, each on one core: small tensors gain nothing from threads.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --no-loadscope-reorder

.PHONY: demo test check fast clean

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

clean:
	rm -rf $(VENV) .mypy_link .mypy_cache .pytest_cache .ruff_cache *.egg-info build dist demo
