# make demo       install, train on the toy, render, measure
# make test       install the tools of development too, lint, run all tests
# make pytest     all tests, without the linters
# make quick      the tests that take no more than a second each
# make coverage   all tests, and which lines they run (those run in other processes do not count)
# make lock       renew requirements.lock, after a change of constraints.txt or pyproject.toml
# make docs       build the documentation into site/, offline
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
# Workers, each with one thread; tests/conftest.py says how many. A file's tests share one and with it whatever they
# train or start.
PARALLEL := --numprocesses auto --dist loadfile --no-loadscope-reorder

.PHONY: lock demo test pytest quick coverage lint format docs clean

demo: $(VENV)/installed
	$(BIN)/consistent4d demo demo

test: lint pytest

pytest: $(VENV)/developing
	$(PYTEST) $(PARALLEL)

quick: $(VENV)/developing
	$(PYTEST) $(PARALLEL) -m "not slow"

coverage: $(VENV)/developing
	$(PYTEST) $(PARALLEL) --cov --cov-report term

lint: $(VENV)/developing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

format: $(VENV)/developing
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/developing
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Install this folder with some extras ($1): by uv, where it is at hand or pip can bring it, or else by pip.
define install
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	command -v uv > /dev/null || test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv || true
	PATH="$$PATH:$(BIN)" uv pip install --python $(BIN)/python --constraint constraints.txt --editable ".$1" \
	|| $(BIN)/python -m pip install --constraint constraints.txt --editable ".$1"
	touch $@
endef

$(VENV)/installed: pyproject.toml constraints.txt
	$(call install)

# Browser, linters and whatever else the demo does without.
$(VENV)/developing: $(VENV)/installed
	$(call install,[dev])

# Versions of constraints.txt with the digests of all files.
lock: $(VENV)/developing
	head -2 requirements.lock > requirements.new
	uv pip compile pyproject.toml --extra dev --constraint constraints.txt --universal --python-version 3.10 \
	  --generate-hashes --no-header --no-annotate --quiet >> requirements.new
	mv requirements.new requirements.lock

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .coverage
