# make run    set up .venv and run the main job        make test       set up and run the tests
# make bench  timings on this machine                  make test-full  slow and heavy environments

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARTIFACTS ?= artifacts

# Test files side by side, one on each core; a machine with many would spend more on imports.
PARALLEL := -n logical --maxprocesses 8 --dist loadfile

.PHONY: run test test-full bench bench-train lint clean

run: $(VENV)/.train
	$(BIN)/pipeline run all --artifacts $(ARTIFACTS)

test: $(VENV)/.dev lint
	$(BIN)/python -m pytest $(PARALLEL)

# What is slow and heavy comes one by one: memory, kills and whole runs are looked at there.
test-full: test
	$(BIN)/python -m pytest -m full -v -ra

bench: $(VENV)/.dev
	$(BIN)/python -m pytest -m bench -v -s -ra

bench-train: $(VENV)/.train
	$(BIN)/python tests/bench/bench_train.py --artifacts $(ARTIFACTS)/bench-train --textbook

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

# A stamp file says what is installed, so that a second make has nothing to do.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  "Python 3.11 or newer is needed, found %d.%d: make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.train: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --disable-pip-version-check -q -e '.[cpu,train]'
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --disable-pip-version-check -q -e '.[cpu,train,dev]'
	@touch $@ $(VENV)/.train
