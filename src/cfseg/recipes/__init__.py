"""Recipes: every number of the method, in TOML files beside the code that checks them."""
