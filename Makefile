# `make demo` runs the main job on built-in data, `make test` the tests but for the slow ones, `make test-all` all of them.
# Each sets itself up from python3 (>= 3.11).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TESTS := $(BIN)/python -m pytest -n auto --dist loadgroup
# Compiled tests are kept for the next process: making them takes half of the time of collecting them.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-slow test-all lint types setup clean

demo: $(READY)
	$(BIN)/satdifuser demo

test: $(READY)
	$(TESTS) -m "not slow"

test-slow: $(READY)
	$(TESTS) -m slow

test-all: $(READY)
	$(TESTS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

setup: $(READY)

# A change of the pinned versions or of the package's metadata installs again; nothing else does.
$(READY): pyproject.toml tools/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "satdifuser needs Python 3.11 or newer; say which with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "setting up $(VENV) (once; torch and its libraries take some minutes and 6 GB)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c tools/constraints.txt -e '.[dev]'
	@touch $(READY)

clean:
	rm -rf $(VENV) build dist demo-output
