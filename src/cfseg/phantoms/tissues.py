"""Tissue classes of a phantom or an atlas; organs keep their label ids 1..13."""

AIR, SUBCUTANEOUS, VISCERAL, MUSCLE, BONE, SPONGIOSA, LUNG = 0, 20, 21, 22, 23, 36, 24
BOWEL, VEIN, HEART, CANAL, DISC, TABLE, FLUID, COLON = 25, 26, 27, 28, 29, 34, 35, 37
BLADDER, SOFT, GAS, ARTERY = 30, 31, 32, 38
"""Tissue classes beside the organs; the last four are in atlases alone."""
