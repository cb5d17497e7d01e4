# make install   a virtual environment in .venv with everything in it
# make demo      the whole main job on volumes that the demo makes itself
# make test      lint, then all quick tests
# make lint      ruff, mypy, import contracts
# make wheel     dist/u2net_platform-*.whl
# make clean     remove what the targets above have made, but for .venv

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: install demo test lint wheel clean
.DELETE_ON_ERROR:

install: $(STAMP)

# Torch comes first and by its exact version: a CPU build that lies at hand satisfies it, and
# nothing that is installed later asks for another.
$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/pip || $(MAKE) --no-print-directory .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

.PHONY: .venv
.venv:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo 'Python 3.11, 3.12 or 3.13 is needed. Name one: make PYTHON=/path/to/python' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo '$(PYTHON) has no venv. On Debian: apt-get install python3-venv' >&2; exit 1; }
	$(PYTHON) -m venv .venv

demo: install
	$(BIN)/u2net demo

# Two files at a time, of one thread each: most tests wait for processes, or compute on volumes too
# small for two threads, and those of a file share what is costly to make.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

wheel: install
	rm -rf dist
	$(BIN)/python -m build --wheel

clean:
	rm -rf dist build demo .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -r {} +
