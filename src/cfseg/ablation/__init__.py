"""What each part of the method is worth: the cascade without it, on the same cases (paper 4)."""
