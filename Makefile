PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
CONFIG ?= configs/majl.py:quickstart
WORKDIR ?= runs/majl
TRACKS ?= train=30,valid=2,test=8

export TF_CPP_MIN_LOG_LEVEL ?= 2
export NO_MKDOCS_2_WARNING ?= 1
# Large pages for large arrays, where Linux leaves them to the program: up to 19 % off a step on CPU.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
# Packages come without bytecode: the first import keeps it, or each process compiles 5,000 files.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test test-all test-thorough test-cluster lint docs clean

# The main job: install, render the built-in data, train and evaluate MAJL, write a report.
run: $(VENV)/.installed
	$(BIN)/python -m majl_jax.prepare --dataset=chorales,chorales_stems,chorales_pitch --tracks=$(TRACKS)
	$(BIN)/python -m majl_jax.main --config=$(CONFIG) --workdir=$(WORKDIR)

# Two workers; tests of one group (what they share is made once) go to one of them.
PYTEST = $(BIN)/python -m pytest -n 2 --dist=loadgroup

# Minutes on two cores: all but what is marked slow.
test: lint
	$(PYTEST) -m "not slow and not thorough and not cluster"

test-all: lint docs
	$(PYTEST) -m "not thorough and not cluster" --durations=25

# Before a release: every separator in a run, every step lowered for accelerators.
test-thorough: $(VENV)/.installed-test
	$(PYTEST) -m thorough

# Minutes of waiting, after apt install slurm-wlm munge.
test-cluster: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m cluster

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

# The site, into build/site; a warning is an error.
docs: $(VENV)/.installed-docs
	$(BIN)/mkdocs build --quiet --strict

$(VENV)/.installed: setup.cfg setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-test: setup.cfg setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable .[test]
	touch $@ $(VENV)/.installed

# After the tests' packages, so that `make -j2` never has two pips in one place.
$(VENV)/.installed-docs: $(VENV)/.installed-test
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable .[docs]
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache
