# The two commands of the README are `make demo` and `make test`. PYTHON names another interpreter: make demo PYTHON=python3.12
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Two processes by default; each test computes with the threads that its plan states.
WORKERS ?= 2
TEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo test proof kinds check lint tiny

help:
	@echo "make demo    install, then watch tiny multimodal models being fine-tuned, measured and used"
	@echo "make test    install, then run the fast and the line tests"
	@echo "make proof   the slow tests too, up to an hour"
	@echo "make kinds   walk every kind of pretrained model, and write docs/support.md"
	@echo "make check   ruff, pyright and the house rules"
	@echo "make lint    ruff alone, mending what it can"
	@echo "make tiny    train the embedded base anew, up to an hour on two cores"

demo: $(VENV)/installed
	$(BIN)/multitune demo

test: $(VENV)/installed-test
	$(TEST) -m "not slow"

proof: kinds
	$(BIN)/python -m pytest -m "slow" --ignore tests/models/kinds

kinds: $(VENV)/installed-test
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m tests.models.kinds.conformance

check: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python -m pytest -q tests/rules

lint: $(VENV)/installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

tiny: $(VENV)/installed
	$(BIN)/python -m recipes.pretrain

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "multitune needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)."; \
	  echo "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# A stamp newer than the pins means that nothing has to be installed.
$(VENV)/installed: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable .
	@touch $@

$(VENV)/installed-test: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable ".[test]"
	@touch $@ $(VENV)/installed
