"""Pseudo-labels: what a model says of cases that nobody labelled, merged with what is known."""
