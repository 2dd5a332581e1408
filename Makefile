# Two commands matter: `make demo` and `make test`. Both set everything up first and are quick the second time.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test lint bench ablation setup setup-dev setup-bench clean

demo: setup  ## make footage, index it, search it, tag it, write a contact sheet to demo/
	$(BIN)/footage demo demo

test: setup-dev  ## the default tests, side by side; slow ones: make test ARGS="-m slow"
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadgroup --no-loadscope-reorder $(ARGS)

lint: setup-dev  ## style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup-bench  ## every comparison on this machine, one after the other, small; results in build/bench/
	$(BIN)/python -m benchmarks.ingest --rows h264:720:250,hevc:720:250 --seconds 60 --rounds 2 --copies 2
	$(BIN)/python -m benchmarks.decode --rounds 2
	$(BIN)/python -m benchmarks.encode --rounds 2
	$(BIN)/python -m benchmarks.scaling --cores
	$(BIN)/python -m benchmarks.where
	$(BIN)/python benchmarks/noop.py plan 1000 100000
	$(BIN)/footage demo demo
	$(BIN)/python benchmarks/rerank.py demo/archive

ablation: setup  ## what each part of X-CLIP adds, trained from nothing: hours on a busy machine, goes on if killed
	$(BIN)/python benchmarks/ablation.py build/ablation/runs.jsonl

setup: $(VENV)/.installed

setup-dev: $(VENV)/.installed-dev

setup-bench: $(VENV)/.installed-bench

$(VENV)/.installed: pyproject.toml
	@echo "setting up $(VENV): a few minutes and 6 GB the first time, most of it PyTorch"
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("footage needs Python 3.11 or newer, this is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[serve]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --editable '.[dev]'
	touch $@

$(VENV)/.installed-bench: $(VENV)/.installed-dev
	$(PIP) --editable '.[bench]'
	touch $@

clean:  ## forget the environment and the demo
	rm -rf $(VENV) demo
