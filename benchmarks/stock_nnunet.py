"""Segment one scan with stock ``nnUNetPredictor``, with nnU-Net's own settings.

Half overlapping windows with Gaussian weights and, unless ``--no-mirror`` is given, mirroring.

Example: python benchmarks/stock_nnunet.py MODEL_FOLDER ct_0000.nii.gz outputs --device cpu
"""

import argparse
from pathlib import Path


def main() -> None:
    """Segment the scan that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="nnU-Net v2 model folder")
    parser.add_argument("scan", type=Path, help="NIfTI file")
    parser.add_argument("output", type=Path, help="folder")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--fold", default="0")
    parser.add_argument("--no-mirror", action="store_true")
    arguments = parser.parse_args()

    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    fold = int(arguments.fold) if arguments.fold.isdigit() else arguments.fold
    device = torch.device(arguments.device)
    predictor = nnUNetPredictor(
        use_mirroring=not arguments.no_mirror,
        perform_everything_on_device=device.type == "cuda",
        device=device,
        allow_tqdm=False,
    )
    predictor.initialize_from_trained_model_folder(str(arguments.model), (fold,))
    name = arguments.scan.name.removesuffix(".gz").removesuffix(".nii").removesuffix("_0000")
    predictor.predict_from_files_sequential(
        [[str(arguments.scan)]], [str(arguments.output / name)], save_probabilities=False
    )


if __name__ == "__main__":
    main()
