# Everything lives in .venv; the pins are in constraints.txt. PYTHON names the interpreter to build it with.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
# More words for pytest, as in `make test ARGS=--durations=20`.
ARGS ?=

.PHONY: install install-all install-test install-docs demo test test-slow test-lowest check docs clean pins

install: $(VENV)/installed
install-test: $(VENV)/installed-test
# With Multi-Agent MuJoCo, PettingZoo and films.
install-all: $(VENV)/installed-all

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "omad needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@# What a failed attempt leaves would be taken for an environment.
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

$(VENV)/installed-all: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[mujoco,pettingzoo,render]'
	@touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	@touch $@

# In one step, which is quicker than the package first and then what its tests need.
$(VENV)/installed-test: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	@touch $(VENV)/installed $@

# With what builds the documentation.
install-docs: $(VENV)/installed-docs

# Train OMAD for a few minutes, evaluate it beside the reference returns, draw the curve and one learned episode.
demo: install
	$(BIN)/omad demo

test: install-test
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal --maxprocesses $(WORKERS) $(ARGS)

# What takes minutes: learning checks, every algorithm where two are always run, long kills. They run more than they
# compile, so programs are made as users' are, but for the emitters of fused loops; all modules check their types.
test-slow: install-test
	CHECKED_MODULES=omad XLA_FLAGS=--xla_cpu_use_fusion_emitters=false $(BIN)/python -m pytest -m slow $(ARGS)

# The documentation as a site that opens offline: site/index.html.
docs: install-docs
	$(BIN)/mkdocs build --strict

# The lowest versions that pyproject.toml declares, in an environment of its own; ARGS=--newest for the newest.
test-lowest:
	$(PYTHON) tests/lower_bounds.py $(ARGS)

# Types are checked while ruff, which takes a second, speaks first; either one fails it.
check: install-test
	@$(BIN)/pyright > .pyright.log 2>&1 & types=$$!; failed=0; \
	$(BIN)/ruff format --check . || failed=1; \
	$(BIN)/ruff check . || failed=1; \
	wait $$types || failed=1; cat .pyright.log; rm -f .pyright.log; exit $$failed

clean:
	rm -rf $(VENV) build dist site .pytest_cache .ruff_cache

# Write the versions of the current environment as the new pins.
pins: install-test install-docs
	$(BIN)/python -m pip freeze --exclude-editable --disable-pip-version-check | grep -E '^[A-Za-z0-9_.-]+==' > constraints.txt
