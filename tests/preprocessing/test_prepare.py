from itertools import permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cfseg.geometry import Geometry
from cfseg.plan import Architecture, Intensity, Resampling, StagePlan
from cfseg.preprocessing.intensity import normalize
from cfseg.preprocessing.prepare import Prepared, network_shape, prepare
from cfseg.preprocessing.resample import resample, separate_axis
from cfseg.preprocessing.restore import restore_labels
from cfseg.volume import Volume

INTENSITY = Intensity(lower=-160.0, upper=300.0, mean=70.0, std=80.0)
LABELS = (0, 3, 14)
TRANSPOSES = st.sampled_from(list(permutations((0, 1, 2))))
SPACINGS = st.tuples(*[st.floats(0.5, 6.0)] * 3)
SHAPES = st.tuples(*[st.integers(1, 20)] * 3)
RULES = st.builds(
    Resampling,
    method=st.sampled_from(["spline", "trilinear"]),
    normalize_first=st.booleans(),
    separate_z=st.sampled_from([None, True, False]),
    logits_order=st.sampled_from([0, 1, 3]),
    logits_order_z=st.sampled_from([0, 1]),
)


def resample_corners(image, shape):
    """Trilinear over the whole volume, centers of the corner voxels aligned, as the authors do."""
    batch = image[None, None]
    return F.interpolate(batch, size=shape, mode="trilinear", align_corners=True)[0, 0]


def plan_of(spacing_mm, transpose=(0, 1, 2), resampling=None) -> StagePlan:
    return StagePlan(
        spacing_mm=spacing_mm,
        patch=(16, 16, 16),
        labels=LABELS,
        architecture=Architecture(
            features=(4, 8),
            kernel_sizes=((3, 3, 3), (3, 3, 3)),
            strides=((1, 1, 1), (2, 2, 2)),
            n_conv_encoder=(1, 1),
            n_conv_decoder=(1,),
        ),
        intensity=INTENSITY,
        resampling=resampling or Resampling(),
        transpose=transpose,
    )


def volume_of(shape, spacing_mm, seed=0) -> Volume:
    hu = np.random.default_rng(seed).normal(0, 400, shape).astype(np.float32)
    return Volume(hu, Geometry.from_spacing(shape, spacing_mm))


def blob_logits(prepared: Prepared, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((len(LABELS), *prepared.array.shape), generator=generator)


@settings(deadline=None, max_examples=80)
@given(SHAPES, SPACINGS, SPACINGS, TRANSPOSES, RULES)
def test_there_and_back_gives_the_grid_again(shape, own_mm, network_mm, transpose, rule) -> None:
    volume = volume_of(shape, own_mm)
    prepared = prepare(volume, plan_of(network_mm, transpose, rule))
    assert prepared.array.shape == network_shape(volume.geometry, prepared.plan)
    assert prepared.array.dtype == np.float32
    label_map = restore_labels(blob_logits(prepared), prepared)
    assert label_map.geometry is volume.geometry
    assert label_map.ids.shape == shape
    assert np.isin(label_map.ids, LABELS).all()


@settings(deadline=None, max_examples=60)
@given(SHAPES, SPACINGS, SPACINGS, TRANSPOSES, RULES, st.sampled_from([0.0, 1.0, 2.0]))
@example((4, 4, 4), (1.0, 6.0, 6.0), (1.0, 1.5, 1.5), (0, 1, 2), Resampling(), 0.0)
@example((4, 24, 24), (1.0, 6.0, 6.0), (1.0, 1.5, 1.5), (0, 1, 2), Resampling(), 2.0)
def test_labels_are_the_argmax_of_resampled_logits(
    shape, own_mm, network_mm, transpose, rule, background
) -> None:
    """Slab by slab, class by class and box by box gives what the whole at once would."""
    volume = volume_of(shape, own_mm)
    prepared = prepare(volume, plan_of(network_mm, transpose, rule))
    logits = blob_logits(prepared)
    logits[0] += background  # the others exceed it here and there only
    there = tuple(shape[axis] for axis in transpose)
    axis = separate_axis(network_mm, volume_axes(volume, transpose), rule)
    if rule.method == "trilinear":
        whole = torch.stack([resample_corners(c, there) for c in logits])
    else:
        orders = (rule.logits_order, rule.logits_order_z)
        whole = torch.stack([resample(c, there, *orders, axis) for c in logits])
    ids = np.asarray(LABELS)[whole.argmax(dim=0).numpy()]
    restored = restore_labels(logits, prepared).ids.transpose(transpose)
    margin = (whole.topk(2, dim=0).values[0] - whole.topk(2, dim=0).values[1]).numpy()
    assert ((restored == ids) | (margin < 1e-4)).all()


def volume_axes(volume: Volume, transpose) -> tuple[float, float, float]:
    z, y, x = (volume.geometry.spacing_mm[axis] for axis in transpose)
    return z, y, x


def test_a_plan_with_the_volumes_own_grid_only_normalizes() -> None:
    volume = volume_of((6, 7, 8), (2.0, 1.0, 1.0))
    prepared = prepare(volume, plan_of((2.0, 1.0, 1.0)))
    expected = (np.clip(volume.hu, -160, 300) - 70) / 80
    np.testing.assert_allclose(prepared.array, expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_the_volume_is_not_changed(dtype) -> None:
    hu = volume_of((6, 7, 8), (2.0, 1.0, 1.0)).hu.astype(dtype)
    volume = Volume(hu.copy(), Geometry.from_spacing((6, 7, 8), (2.0, 1.0, 1.0)))
    prepare(volume, plan_of((2.0, 1.0, 1.0)))
    prepare(volume, plan_of((3.0, 1.5, 1.5)))
    assert np.array_equal(volume.hu, hu)


@pytest.mark.parametrize("normalize_first", [True, False])
def test_padding_outside_the_field_of_view_is_air(normalize_first) -> None:
    """-3024 next to tissue must not pull the spline further down than air does."""
    rule = Resampling(normalize_first=normalize_first)
    plan = plan_of((1.3, 1.3, 1.3), resampling=rule)
    geometry = Geometry.from_spacing((8, 8, 8), (1.0, 1.0, 1.0))
    results = []
    for outside in (-1024, -3024):
        hu = np.full((8, 8, 8), 40, dtype=np.int16)
        hu[:, :3] = outside
        results.append(prepare(Volume(hu, geometry), plan).array)
    assert np.array_equal(*results)


def test_normalizing_first_or_last_is_the_plans_choice() -> None:
    volume = volume_of((9, 9, 9), (1.0, 1.0, 1.0))
    plan = plan_of((1.4, 1.4, 1.4), resampling=Resampling(normalize_first=False))
    hu = np.maximum(volume.hu, -1024)
    expected = resample(torch.from_numpy(hu), (6, 6, 6), 3).numpy()
    normalize(expected, INTENSITY)
    np.testing.assert_allclose(prepare(volume, plan).array, expected, atol=1e-5)
    first = plan_of((1.4, 1.4, 1.4), resampling=Resampling(normalize_first=True))
    assert np.abs(prepare(volume, first).array - expected).max() > 0.1


def test_the_coarse_axis_has_its_own_order() -> None:
    volume = volume_of((6, 9, 9), (5.0, 1.0, 1.0))
    plan = plan_of((2.5, 1.5, 1.5), resampling=Resampling(order_z=1))
    prepared = prepare(volume, plan)
    scores = prepare(volume, plan_of((5.0, 1.0, 1.0))).array
    expected = resample(torch.from_numpy(scores), (12, 6, 6), 3, 1, 0).numpy()
    np.testing.assert_allclose(prepared.array, expected, atol=1e-5)
    nearest = resample(torch.from_numpy(scores), (12, 6, 6), 3, 0, 0).numpy()
    assert np.abs(prepared.array - nearest).max() > 0.1


def test_each_way_looks_first_at_the_grid_it_comes_from() -> None:
    """The scan is coarse along z, the network's grid along x: the way back is coarse along x."""
    volume = volume_of((4, 12, 12), (5.0, 1.0, 1.0))
    prepared = prepare(volume, plan_of((1.25, 1.0, 4.0)))
    there = resample(
        torch.from_numpy(prepare(volume, plan_of((5.0, 1.0, 1.0))).array), (16, 12, 3), 3, 0, 0
    )
    np.testing.assert_allclose(prepared.array, there.numpy(), atol=1e-5)
    logits = blob_logits(prepared)
    back = torch.stack([resample(c, (4, 12, 12), 1, 0, 2) for c in logits]).argmax(dim=0)
    assert np.array_equal(restore_labels(logits, prepared).ids, np.asarray(LABELS)[back])


def test_axes_are_transposed_and_back() -> None:
    volume = volume_of((5, 6, 7), (3.0, 2.0, 1.0))
    plan = plan_of((1.0, 3.0, 2.0), transpose=(2, 0, 1))
    prepared = prepare(volume, plan)
    expected = prepare(volume, plan_of((3.0, 2.0, 1.0))).array.transpose(2, 0, 1)
    assert np.array_equal(prepared.array, expected)
    logits = torch.zeros(3, *prepared.array.shape)
    logits[2][prepared.array > 0] = 1
    restored = restore_labels(logits, prepared)
    assert np.array_equal(restored.ids == 14, np.clip(volume.hu, -160, 300) > 70)


def test_equal_logits_go_to_the_first_class() -> None:
    prepared = prepare(volume_of((4, 4, 4), (1.0, 1.0, 1.0)), plan_of((1.5, 1.5, 1.5)))
    assert not restore_labels(np.zeros((3, *prepared.array.shape), np.float32), prepared).ids.any()


def test_logits_of_another_grid_are_refused() -> None:
    prepared = prepare(volume_of((4, 4, 4), (1.0, 1.0, 1.0)), plan_of((1.0, 1.0, 1.0)))
    with pytest.raises(ValueError, match="expected"):
        restore_labels(torch.zeros(3, 4, 4, 5), prepared)


def test_a_thin_scan_keeps_one_plane() -> None:
    geometry = Geometry.from_spacing((1, 9, 9), (1.0, 1.0, 1.0))
    assert network_shape(geometry, plan_of((5.0, 1.0, 1.0))) == (1, 9, 9)
