# make demo    set up and segment a synthetic CT
# make test    set up and run the tests
# make check   what CI runs: lint, format, types, layers, tests
# make fuzz    read 5000 damaged inputs (a minute or two): only declared errors, no hang
# make bench   measure speed and memory, write docs/performance.md (three hours, a quiet machine)
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.ready
JOBS ?= 2
# Several processes with a thread each; tests/conftest.py says which files go first.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

.PHONY: setup demo test check fuzz bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-compile --no-deps -c constraints.txt torch
	$(BIN)/pip install --quiet --no-compile -c constraints.txt -e '.[dev]'
	$(BIN)/python -m compileall -qq -j 0 -x '/tests/' .venv/lib || true  # pip would use one core
	touch $(STAMP)

demo: setup
	$(BIN)/cfseg demo -o demo

test: setup
	$(PYTEST)

check: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST)

fuzz: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --jobs $(JOBS)

bench: setup
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv demo dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
