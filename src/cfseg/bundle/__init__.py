"""Model folders in and out: bundles, nnU-Net v2 folders, the authors' nnU-Net v1 files."""
