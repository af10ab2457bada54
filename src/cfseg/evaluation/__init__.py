"""Judges label maps; knows no model."""
