"""Stock nnU-Net v2 and a slow reference, each from a plan and weights to a label array.

Both prepare the volume and bring the logits back with nnU-Net's own code, so whoever agrees with
them agrees with nnU-Net from Hounsfield units to labels. They need the plan's ``method`` to be
``spline`` and ``normalize_first``, nnU-Net v2's only ways.
"""

import contextlib
import io
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pytest
import torch

from cfseg.bundle.export_v2 import CONFIGURATION, plans_json
from cfseg.inference.sliding_window import Windows
from cfseg.plan import StagePlan
from cfseg.volume import Volume


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """nnU-Net prints notices about unset variables, and its imports warn."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


class Stock:
    """nnU-Net's own objects for a plan."""

    def __init__(self, plan: StagePlan) -> None:
        pytest.importorskip("nnunetv2")
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        self.plan = plan
        self.manager = PlansManager(plans_json(plan, "Dataset001_Test"))
        self.configuration = self.manager.get_configuration(CONFIGURATION)
        names = {"background": 0, **{f"label_{i}": i for i in range(1, len(plan.labels))}}
        self.dataset = {"channel_names": {"0": "CT"}, "labels": names, "file_ending": ".nii.gz"}

    def network(self, weights: Mapping[str, torch.Tensor]) -> torch.nn.Module:
        from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

        network = get_network_from_plans(
            self.configuration.network_arch_class_name,
            self.configuration.network_arch_init_kwargs,
            self.configuration.network_arch_init_kwargs_req_import,
            1,
            len(self.plan.labels),
            deep_supervision=False,
        )
        # A bundle holds each tensor once, nnU-Net's modules know it by several names.
        names: dict[int, list[str]] = {}
        full = network.state_dict(keep_vars=True)
        for name, tensor in full.items():
            names.setdefault(id(tensor), []).append(name)
        for aliases in names.values():
            given = next(name for name in aliases if name in weights)
            full[given].data.copy_(weights[given])
        return network.eval()

    def prepare(self, volume: Volume) -> tuple[npt.NDArray[np.float32], dict[str, object]]:
        properties: dict[str, object] = {"spacing": list(volume.geometry.spacing_mm)}
        preprocessor = self.configuration.preprocessor_class(verbose=False)
        hu = np.maximum(volume.hu, -1024).astype(np.float32)[None]
        data, _, properties = preprocessor.run_case_npy(
            hu, None, properties, self.manager, self.configuration, self.dataset
        )
        return data, properties

    def labels(self, logits: torch.Tensor, properties: dict[str, object]) -> npt.NDArray[np.uint8]:
        from nnunetv2.inference.export_prediction import (
            convert_predicted_logits_to_segmentation_with_correct_shape as convert,
        )

        label_manager = self.manager.get_label_manager(self.dataset)
        found = convert(
            logits, self.manager, self.configuration, label_manager, properties, False, 1
        )
        return np.asarray(self.plan.labels, dtype=np.uint8)[found]


def stock_predict(
    plan: StagePlan,
    weights: Mapping[str, torch.Tensor],
    volume: Volume,
    windows: Windows,
) -> npt.NDArray[np.uint8]:
    """Return the FLARE labels (Z, Y, X) that nnU-Net's own predictor finds, on the CPU."""
    with quiet():
        stock = Stock(plan)
        data, properties = stock.prepare(volume)
        predictor = stock_predictor(stock, weights, windows.step, windows.gaussian, windows.mirror)
        logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data))
        return stock.labels(logits, properties)


def stock_predictor(
    stock: Stock,
    weights: Mapping[str, torch.Tensor],
    step: float,
    gaussian: bool = False,
    mirror: bool = False,
):
    """Return nnU-Net's predictor with these weights."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        tile_step_size=step,
        use_gaussian=gaussian,
        use_mirroring=mirror,
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    network = stock.network(weights)
    predictor.manual_initialization(
        network,
        stock.manager,
        stock.configuration,
        [network.state_dict()],
        stock.dataset,
        "nnUNetTrainer",
        (0, 1, 2),
    )
    return predictor


def reference_predict(
    plan: StagePlan,
    weights: Mapping[str, torch.Tensor],
    volume: Volume,
    windows: Windows,
) -> npt.NDArray[np.uint8]:
    """Return the FLARE labels (Z, Y, X) of a plain loop that adds up logits in float32."""
    with quiet(), torch.inference_mode():
        stock = Stock(plan)
        data, properties = stock.prepare(volume)
        network = stock.network(weights)
        if windows.mirror:
            network = mirrored(network)
        bell = bell_of(plan.patch) if windows.gaussian else 1.0
        classes = len(plan.labels)
        logits = reference_logits(network, data[0], plan.patch, windows.step, classes, bell)
        return stock.labels(torch.from_numpy(logits), properties)


def mirrored(network: Callable[[torch.Tensor], torch.Tensor]):
    """Return the mean of a network's answers to a window and its seven reflections."""

    def predict(window: torch.Tensor) -> torch.Tensor:
        answers = []
        for flips in itertools.product((False, True), repeat=3):
            axes = [axis for axis, flip in zip((2, 3, 4), flips, strict=True) if flip]
            answers.append(network(window.flip(axes)).flip(axes).clone())
        return torch.stack(answers).mean(dim=0)

    return predict


def bell_of(patch: tuple[int, int, int]) -> npt.NDArray[np.float32]:
    """Return nnU-Net's weights of a window in single precision."""
    from nnunetv2.inference.sliding_window_prediction import compute_gaussian

    bell = compute_gaussian(patch, 1 / 8, 10, dtype=torch.float32, device=torch.device("cpu"))
    return np.asarray(bell)


def reference_logits(
    network: Callable[[torch.Tensor], torch.Tensor],
    image: npt.NDArray[np.float32],
    patch: tuple[int, int, int],
    step: float,
    classes: int,
    bell: npt.NDArray[np.float32] | float = 1.0,
) -> npt.NDArray[np.float32]:
    """Return logits (C, Z, Y, X), window by window, in the most literal way."""
    from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window

    missing = [max(p - n, 0) for p, n in zip(patch, image.shape, strict=True)]
    padded = np.pad(image, [(m // 2, m - m // 2) for m in missing])
    sums = np.zeros((classes, *padded.shape), dtype=np.float32)
    counts = np.zeros(padded.shape, dtype=np.float32)
    z_starts, y_starts, x_starts = compute_steps_for_sliding_window(padded.shape, patch, step)
    for z in z_starts:
        for y in y_starts:
            for x in x_starts:
                here = np.s_[z : z + patch[0], y : y + patch[1], x : x + patch[2]]
                window = torch.from_numpy(padded[here][None, None].copy())
                sums[(slice(None), *here)] += network(window)[0].numpy() * bell
                counts[here] += bell
    inside = [slice(m // 2, m // 2 + n) for m, n in zip(missing, image.shape, strict=True)]
    return np.ascontiguousarray((sums / counts)[(slice(None), *inside)])
