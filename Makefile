# Two commands on a fresh machine: `make run` does the main job, `make test` passes the tests.
# Each makes its own virtual environment in .venv first, when there is none yet.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
ARGS ?=

.PHONY: run test check dashboard clean

run: $(VENV)/.installed
	$(BIN)/mvit-search run --budget 6M --target iphone12 $(ARGS)

# A process a core, one thread each: more would only wait for one another.
test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

check: $(VENV)/.installed
	PATH="$(CURDIR)/$(BIN):$$PATH" tools/check

dashboard: $(VENV)/.installed
	$(BIN)/mvit-search dashboard $(ARGS)

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
