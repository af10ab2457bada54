"""Damaged inputs of every kind; see :mod:`tests.fuzz.__main__`."""

import sys
from pathlib import Path

# Where pytest finds the small scans, models and cohorts that the mutants are made of.
sys.path += [
    str(Path(__file__).parents[1] / name) for name in (".", "io", "bundle", "dataset", "findings")
]
