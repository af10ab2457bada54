"""Synthetic abdominal CTs: anatomy, appearance, lesions, acquisition, and cohorts of them."""
