# Theodolite on a machine that has only Python and make.
#
#   make demo    survey a digit classifier and write a report
#   make test    the whole suite
#   make check   tests, lint, types and import directions
#
# On Linux without a GPU, set PIP_EXTRA_INDEX_URL to PyTorch's CPU index before the first call: the download
# is then a tenth of the size.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
# The demo's folder, replaced by every run, and more of its flags, such as DEMO="--budget '60 s'".
OUT ?= demo
DEMO ?=

BIN := $(VENV)/bin
LOCK := requirements.lock
# A new lock file or new metadata makes a new stamp, and so a new install.
KEY := $(shell cat $(LOCK) pyproject.toml | cksum | tr ' ' '-')
STAMP := $(VENV)/installed-$(KEY)

.PHONY: demo test lint types imports check install lock clean

demo: $(STAMP)
	$(BIN)/theodolite demo --out $(OUT) --overwrite $(DEMO)
	@echo "The report is $(abspath $(OUT))/report.html"

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -rs

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/pyright --pythonpath $(BIN)/python

imports: $(STAMP)
	$(BIN)/lint-imports

check: lint types imports test

install: $(STAMP)

$(STAMP):
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Theodolite needs Python 3.11 or newer; set PYTHON, as in: make demo PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r $(LOCK)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	rm -f $(VENV)/installed-*
	touch $@

# A fresh environment with the newest versions that fit, torch apart, written down exactly.
lock:
	rm -rf build/lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet ".[demo,dev]" torch==2.13.0
	echo "# Exact versions of all that the demo, the tests and the checks need. Renewed by: make lock" > $(LOCK)
	build/lock/bin/python -m pip freeze --exclude theodolite | sed 's/+cpu$$//' >> $(LOCK)
	rm -rf build/lock

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .import_linter_cache build dist
