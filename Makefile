# make demo: from a fresh clone to a talking head. make test: everything that is claimed, checked.
# Needs Python 3.11 or newer with pip and venv, and the network the first time. No compiler, no GPU.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEMO_FOLDER ?= talkgs-demo

.PHONY: help install demo test lint clean

help:
	@echo "make install   talkgs and its tools in $(VENV), third-party files in the cache"
	@echo "make demo      all four commands on a made-up speaker -> $(DEMO_FOLDER)/"
	@echo "make test      the tests"
	@echo "make lint      ruff, mypy, import layers"
	@echo "make clean     remove $(VENV) and what tools left behind; speakers are kept"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@echo "Installing talkgs and its packages into $(VENV); the first time takes a few minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/talkgs assets --pull \
	  || echo "Going on without: commands fetch what they need, tests that need them are skipped." >&2
	@touch $@

demo: $(INSTALLED)
	$(BIN)/talkgs demo --folder "$(DEMO_FOLDER)"
	@echo "The video: $(abspath $(DEMO_FOLDER))/talking.mp4"
	@echo "For your own: . $(BIN)/activate"

test: $(INSTALLED)
	$(BIN)/python -m pytest

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
