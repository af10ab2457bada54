"""What cfseg costs, measured on this machine and against stock nnU-Net; ``make bench``."""
