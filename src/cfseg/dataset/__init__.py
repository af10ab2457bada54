"""A partly labelled cohort: its cases, groups, splits, and the merging of labels."""
