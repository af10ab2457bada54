"""Training: nnU-Net v2 does it; which cases, labels and numbers it gets is decided here."""
