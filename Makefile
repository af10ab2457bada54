# make demo    set up and segment a synthetic CT
# make test    set up and run the tests
# make check   what CI runs: lint, format, types, layers, tests
# make fuzz    read 5000 damaged inputs (a minute or two): only declared errors, no hang
# make soak    kill a training in ten random moments: it ends with the same weights
# make bench   measure speed and memory, write docs/performance.md (three hours, a quiet machine)
PYTHON ?= python3
BIN := .venv/bin
# What segments scans, and with it what trains and tests.
READY := .venv/.ready
READY_DEV := .venv/.ready-dev
JOBS ?= 2
INSTALL := $(BIN)/pip install --quiet --no-compile -c constraints.txt
# pip would use one core.
COMPILE := $(BIN)/python -m compileall -qq -j 0 -x '/tests/' .venv/lib || true
# Several processes with a thread each; tests/conftest.py says which files go first.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

.PHONY: setup demo test check fuzz soak bench clean

setup: $(READY_DEV)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) --no-deps torch
	$(INSTALL) -e '.[dicom,openvino]'
	$(COMPILE)
	touch $@

$(READY_DEV): $(READY)
	$(INSTALL) -e '.[dev]'
	$(COMPILE)
	touch $@

demo: $(READY)
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

soak: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.soak_kill

bench: setup
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv demo dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
