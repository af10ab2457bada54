import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfseg.geometry import Geometry
from cfseg.plan import Architecture, Intensity, Resampling, StagePlan
from cfseg.preprocessing.labels import prepare_labels
from cfseg.preprocessing.prepare import network_shape
from cfseg.volume import LabelMap

IGNORED = 255
SPACINGS = st.tuples(*[st.floats(0.5, 6.0)] * 3)


def plan_of(spacing_mm, transpose=(0, 1, 2), resampling=None) -> StagePlan:
    architecture = Architecture(
        features=(4, 8), kernel_sizes=((3, 3, 3),) * 2, strides=((1, 1, 1), (2, 2, 2)),
        n_conv_encoder=(1, 1), n_conv_decoder=(1,),
    )  # fmt: skip
    return StagePlan(
        spacing_mm=spacing_mm, patch=(16, 16, 16), labels=(0, 1), architecture=architecture,
        intensity=Intensity(lower=-100, upper=100, mean=0, std=1), transpose=transpose,
        resampling=resampling or Resampling(),
    )  # fmt: skip


def blobs(shape, spacing_mm, seed=0) -> LabelMap:
    """Return a map of touching regions, some ignored."""
    rng = np.random.default_rng(seed)
    coarse = rng.choice([0, 0, 1, 2, 14, IGNORED], size=tuple(-(-n // 4) for n in shape))
    ids = coarse.repeat(4, 0).repeat(4, 1).repeat(4, 2)
    cut = tuple(slice(n) for n in shape)
    return LabelMap(ids[cut].astype(np.uint8), Geometry.from_spacing(shape, spacing_mm))


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(*[st.integers(1, 20)] * 3), SPACINGS, SPACINGS,
    st.sampled_from([(0, 1, 2), (2, 0, 1)]), st.sampled_from(["spline", "trilinear"]),
)  # fmt: skip
def test_the_grid_is_the_networks_and_no_label_is_added(
    shape, own_mm, network_mm, transpose, method
) -> None:
    labels = blobs(shape, own_mm)
    plan = plan_of(network_mm, transpose, Resampling(method=method))
    ids = prepare_labels(labels, plan)
    assert ids.shape == network_shape(labels.geometry, plan)
    assert ids.dtype == np.uint8
    assert set(np.unique(ids)) <= {0, *np.unique(labels.ids)}


def test_the_same_grid_changes_nothing() -> None:
    labels = blobs((9, 10, 11), (2.0, 1.0, 1.0))
    assert np.array_equal(prepare_labels(labels, plan_of((2.0, 1.0, 1.0))), labels.ids)


def test_a_case_without_labels_stays_without() -> None:
    labels = LabelMap.empty(Geometry.from_spacing((4, 5, 6), (1.0, 1.0, 1.0)))
    assert not prepare_labels(labels, plan_of((2.0, 1.5, 0.7))).any()


def test_the_label_with_the_largest_share_has_the_voxel() -> None:
    ids = np.array([0, 0, 1, 1, 2, 2, 2, 0, 0], dtype=np.uint8).reshape(1, 1, 9)
    labels = LabelMap(ids, Geometry.from_spacing(ids.shape, (2.0, 2.0, 2.0)))
    found = prepare_labels(labels, plan_of((2.0, 2.0, 3.0)))  # centers at 0.25, 1.75, 3.25, ...
    assert found.ravel().tolist() == [0, 1, 1, 2, 2, 0]


@pytest.mark.parametrize(
    ("shape", "own_mm", "network_mm"),
    [
        ((25, 31, 27), (2.0, 0.8, 0.9), (2.7, 1.3, 1.1)),
        ((21, 21, 21), (3.0, 3.0, 3.0), (2.1, 2.3, 1.9)),
        ((13, 41, 41), (5.0, 0.8, 0.8), (2.5, 1.1, 0.7)),
        ((41, 41, 13), (0.8, 0.8, 5.0), (1.2, 1.2, 2.0)),
    ],
)  # of odd shapes few voxels lie half-way between two, where rounding decides
def test_it_is_what_nnunet_trains_with(shape, own_mm, network_mm) -> None:
    default = pytest.importorskip("nnunetv2.preprocessing.resampling.default_resampling")
    labels = blobs(shape, own_mm, seed=3)
    plan = plan_of(network_mm)
    stock = default.resample_data_or_seg_to_shape(
        labels.ids[None].astype(np.int16), network_shape(labels.geometry, plan), own_mm,
        network_mm, is_seg=True, order=1, order_z=0, force_separate_z=None,
    )[0]  # fmt: skip
    ours = prepare_labels(labels, plan)
    assert (ours == stock).mean() > 0.999
