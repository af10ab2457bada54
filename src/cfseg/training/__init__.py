"""Training: which network learns from what, the loop, validation, and what is kept of it."""
