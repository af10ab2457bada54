"""The cascade: arrays and loaded networks in, label map out. Nothing here sees a path."""
