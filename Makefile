# make train: set up, run the main job. make test: set up, pass all tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# With a kernel of Colab's pins, tests that have something to find there run on it too.
COLAB := TRAINBOOK_COLAB_PYTHON=$${TRAINBOOK_COLAB_PYTHON-$(abspath $(wildcard .venv-colab/bin/python))}

.PHONY: setup train test check smoke smoke-colab bench reliability reliability-quick clean

setup: $(READY)

$(READY): requirements.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python " + sys.version.split()[0] + " was found, but 3.11 or later is needed. Run: make PYTHON=python3.12 ...")'
	@echo "Setting up $(VENV): a few minutes the first time."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt -c constraints.txt
	@touch $(READY)

train: setup
	@$(BIN)/python -m tools run training.ipynb

test: setup
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile

check: setup
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m tools validate
	@$(BIN)/python -m tools sync --check

smoke: setup
	@$(BIN)/python -m tools smoke --total-timeout 900

# The same with a kernel that has Colab's pins; the first time sets up .venv-colab, some minutes.
smoke-colab: setup
	@$(BIN)/python -m tools lane colab-like --create
	@$(BIN)/python -m tools smoke --lane colab-like --total-timeout 900

bench: setup
	@$(BIN)/python benchmarks/bench_trainer.py

# Every promise in full, under an hour on two cores; writes RELIABILITY.md and RELIABILITY.json.
reliability: setup
	@$(COLAB) $(BIN)/python -m tests.faults.report

# The same in minutes; prints the table and writes nothing.
reliability-quick: setup
	@$(COLAB) $(BIN)/python -m tests.faults.report --quick

clean:
	rm -rf $(VENV) .venv-colab runs
