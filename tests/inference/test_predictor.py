from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from stock import Stock, quiet, reference_predict, stock_predict, stock_predictor

from cfseg.errors import ModelError
from cfseg.geometry import Geometry
from cfseg.inference.predictor import (
    Prediction,
    Stage,
    Windows,
    _log_mean,
    mean_labels,
    predict,
    predict_labels,
)
from cfseg.networks.build import build_network, load_network
from cfseg.plan import Architecture, Intensity, Resampling, StagePlan
from cfseg.preprocessing.prepare import Prepared
from cfseg.volume import Volume

CPU = torch.device("cpu")
NEAREST_Z = (7.0, 1.7, 1.7)


def plan_of(spacing_mm=(3.2, 2.1, 2.1), transpose=(0, 1, 2)) -> StagePlan:
    return StagePlan(
        spacing_mm=spacing_mm,
        patch=(16, 32, 32),
        labels=(0, 1, 5, 14),
        architecture=Architecture(
            features=(6, 8, 8),
            kernel_sizes=((3, 3, 3),) * 3,
            strides=((1, 1, 1), (2, 2, 2), (1, 2, 2)),
            n_conv_encoder=(1, 1, 1),
            n_conv_decoder=(1, 1),
        ),
        intensity=Intensity(lower=-160, upper=300, mean=70, std=80),
        transpose=transpose,
    )


def weights_of(plan: StagePlan, seed: int = 3) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {name: tensor.clone() for name, tensor in build_network(plan).state_dict().items()}


def stage_of(plan: StagePlan, weights: dict[str, torch.Tensor]) -> Stage:
    return Stage("coarse", "coarse", plan, load_network(plan, weights, CPU), CPU)


def smooth_scan(shape=(30, 58, 62), spacing_mm=(2.5, 1.6, 1.6)) -> Volume:
    """Soft blobs, some noise and air: as a CT, and no axis a multiple of anything."""
    rng = np.random.default_rng(0)
    blobs = gaussian_filter(rng.normal(size=shape), 3)
    hu = 150 * blobs / blobs.std() + rng.normal(0, 10, shape)
    hu[:, :6] = -1024
    return Volume(hu.astype(np.float32), Geometry.from_spacing(shape, spacing_mm))


def agreement(one: np.ndarray, two: np.ndarray) -> float:
    return float((one == two).mean())


@pytest.mark.parametrize("step", [0.5, 1.0])
@pytest.mark.parametrize("spacing_mm", [(3.2, 2.1, 2.1), NEAREST_Z])
def test_agrees_with_the_reference_and_with_stock_nnunet(step, spacing_mm) -> None:
    plan, volume = plan_of(spacing_mm), smooth_scan()
    weights = weights_of(plan)
    ids = predict(stage_of(plan, weights), volume, Windows(step)).label_map().ids
    assert np.unique(ids).size >= 3
    assert agreement(ids, reference_predict(plan, weights, volume, Windows(step))) >= 0.9999
    assert agreement(ids, stock_predict(plan, weights, volume, Windows(step))) >= 0.998


def test_agrees_on_transposed_axes() -> None:
    plan, volume = plan_of((2.1, 3.2, 2.1), transpose=(1, 0, 2)), smooth_scan()
    weights = weights_of(plan)
    ids = predict(stage_of(plan, weights), volume, Windows(0.5)).label_map().ids
    assert agreement(ids, reference_predict(plan, weights, volume, Windows(0.5))) >= 0.9999


def test_agrees_on_a_scan_smaller_than_a_window() -> None:
    plan, volume = plan_of(), smooth_scan((9, 30, 27))
    weights = weights_of(plan)
    ids = predict(stage_of(plan, weights), volume, Windows(0.5)).label_map().ids
    assert agreement(ids, reference_predict(plan, weights, volume, Windows(0.5))) >= 0.9999


@pytest.mark.parametrize(("gaussian", "mirror"), [(True, False), (False, True), (True, True)])
def test_logits_with_gaussian_and_mirroring_are_those_of_nnunet(gaussian, mirror) -> None:
    plan, volume = plan_of(), smooth_scan((20, 50, 44))
    weights = weights_of(plan)
    ours = predict(stage_of(plan, weights), volume, Windows(0.5, gaussian, mirror)).logits
    with quiet():
        stock = Stock(plan)
        data, _ = stock.prepare(volume)
        predictor = stock_predictor(stock, weights, 0.5, gaussian, mirror)
        theirs = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data))
    # nnU-Net adds up in half precision: about three digits, and none at the image's border, where
    # the bell is so small that half precision rounds weights and products to nothing.
    inside = np.s_[:, 4:-4, 8:-8, 8:-8] if gaussian else np.s_[:]
    assert (ours - theirs.float())[inside].abs().max() < 0.01 * ours.abs().max()
    plain = predict(stage_of(plan, weights), volume, Windows(0.5)).logits
    assert (ours - plain).abs().max() > 0.05 * ours.abs().max()


def test_progress_is_reported_to_the_end() -> None:
    plan = plan_of()
    seen: list[tuple[int, int]] = []
    predict(
        stage_of(plan, weights_of(plan)), smooth_scan(), Windows(1.0), lambda *n: seen.append(n)
    )
    total = seen[-1][1]
    assert seen == [(n, total) for n in range(1, total + 1)]


def prediction_of(logits: torch.Tensor, plan: StagePlan) -> Prediction:
    shape = (int(logits.shape[1]), int(logits.shape[2]), int(logits.shape[3]))
    geometry = Geometry.from_spacing(shape, plan.original_spacing_mm)
    return Prediction(logits, Prepared(torch.zeros(shape), geometry, plan))


def test_the_mean_is_of_probabilities_not_of_logits() -> None:
    plan = plan_of()
    one = torch.tensor([0.0, 9.0, 0.0, 0.0]).view(4, 1, 1, 1)
    two = torch.tensor([0.0, 0.0, 1.0, -50.0]).view(4, 1, 1, 1)
    expected = (one.softmax(0) + two.softmax(0)) / 2
    torch.testing.assert_close(_log_mean([one, two]).exp(), expected)
    mean = mean_labels([prediction_of(one, plan), prediction_of(two, plan)])
    assert mean.ids.item() == 1


def test_the_mean_of_one_keeps_its_labels() -> None:
    plan = plan_of()
    only = prediction_of(torch.randn(4, 5, 6, 7, generator=torch.Generator().manual_seed(0)), plan)
    assert np.array_equal(mean_labels([only]).ids, only.label_map().ids)


def test_impossible_classes_do_not_become_nan() -> None:
    logits = torch.tensor([0.0, -1e4, -1e4, -1e4]).view(4, 1, 1, 1)
    assert torch.isfinite(_log_mean([logits, logits])).all()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"spacing_mm": (3.0, 2.0, 2.0)}, "spacings"),
        ({"labels": (0, 1, 5, 13)}, "labels"),
        ({"transpose": (0, 2, 1)}, "axis orders"),
        ({"resampling": Resampling(order=1)}, "ways of resampling"),
    ],
)
def test_networks_on_different_grids_have_no_mean(change, named) -> None:
    plan = plan_of()
    first = prediction_of(torch.zeros(4, 3, 3, 3), plan)
    other = replace(first.prepared, plan=plan.model_copy(update=change))
    with pytest.raises(ModelError, match=named):
        mean_labels([first, Prediction(first.logits, other)])


def test_patches_may_differ_in_a_mean() -> None:
    first = prediction_of(torch.zeros(4, 3, 3, 3), plan_of())
    plan = first.prepared.plan.model_copy(update={"patch": (32, 32, 32)})
    mean_labels([first, Prediction(first.logits, replace(first.prepared, plan=plan))])


@pytest.mark.parametrize("step", [0.3, 0.5, 1.0])
@pytest.mark.parametrize(
    ("spacing_mm", "transpose", "rule"),
    [
        ((3.2, 2.1, 2.1), (0, 1, 2), Resampling()),
        (NEAREST_Z, (0, 1, 2), Resampling()),
        ((1.2, 2.1, 2.1), (1, 0, 2), Resampling(method="trilinear", normalize_first=False)),
        ((2.1, 9.0, 2.1), (1, 2, 0), Resampling()),
        ((3.2, 2.1, 2.1), (0, 1, 2), Resampling(logits_order=3, separate_z=False)),
    ],
)
def test_labels_found_plane_by_plane_are_those_of_the_whole(
    step, spacing_mm, transpose, rule
) -> None:
    plan = plan_of(spacing_mm, transpose).model_copy(update={"resampling": rule})
    plan = plan.model_copy(update={"patch": (8, 16, 16)})
    stage, volume = stage_of(plan, weights_of(plan)), smooth_scan((41, 37, 39))
    whole = predict(stage, volume, Windows(step, gaussian=True)).label_map().ids
    ids = predict_labels(stage, volume, Windows(step, gaussian=True)).ids
    assert np.array_equal(ids, whole)
    assert np.unique(ids).size >= 3


@pytest.mark.parametrize("gaussian", [False, True])
def test_sums_in_half_precision_change_few_labels(gaussian) -> None:
    plan, volume = plan_of(), smooth_scan()
    stage = stage_of(plan, weights_of(plan))
    windows = Windows(0.5, gaussian)
    exact = predict_labels(stage, volume, windows)
    half = predict_labels(stage, volume, windows, sums=torch.float16)
    assert agreement(exact.ids, half.ids) >= 0.998
