# make demo: install, then pre-train on the embedded recordings. make test: install, then every check and test.
PYTHON ?= python3
BIN := .venv/bin
EXTRA ?= cpu

.PHONY: demo test check venv format clean

venv: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.11 …")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRA),dev]'
	touch $@
