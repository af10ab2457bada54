"""Make a small nnU-Net v2 model folder with random weights: wrong about everything, but it runs.

Example: python benchmarks/random_network.py work
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "bundle"))
from small_models import ORGANS, small_plan, write_model_folder

if __name__ == "__main__":
    print(write_model_folder(Path(sys.argv[1]), small_plan(ORGANS)))
