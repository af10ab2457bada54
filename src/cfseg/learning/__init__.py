"""A network learns from windows: the loop, the loss, what is kept, several processes."""
