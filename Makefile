# make demo · make test · make campaign · make fuzz · make setup · make clean   Needs Python 3.11 to 3.13, a C compiler, PyPI.

PYTHON ?= python3
MINUTES ?= 5
BIN := .venv/bin

.PHONY: setup demo test fuzz campaign clean

setup: .venv/ready
	@$(BIN)/python -m boards.seed

# the stamp comes last, so that an interrupted installation is done again
.venv/ready: pyproject.toml
	@command -v "$(PYTHON)" > /dev/null || { echo "error: $(PYTHON) is not installed; expected Python 3.11 to 3.13 (make setup PYTHON=python3.12)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || { echo "error: $$($(PYTHON) --version) found, expected Python 3.11 to 3.13; name one: make setup PYTHON=python3.12" >&2; exit 1; }
	@command -v cc > /dev/null || { echo "error: no C compiler (cc) found; install one, for example: apt-get install gcc" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2> /dev/null || { echo "error: $$($(PYTHON) --version) cannot make environments; install its venv module, for example: apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing into .venv; TensorFlow is large, so this takes a few minutes"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: setup
	$(BIN)/coordinator demo

test: setup
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python -m pytest -n auto --dist loadfile

# needs clang; what is found is kept in build/fuzz
fuzz: setup
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES)

# 10,000 simulated runs, each with the faults of its seed: minutes
campaign: setup
	$(BIN)/python -m simulation.campaign

clean:
	rm -rf .pio .platformio .tierfed platformio.local.ini runs/demo build .pytest_cache .mypy_cache .ruff_cache .hypothesis
