"""From plans to networks."""
