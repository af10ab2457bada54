from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfseg.dataset.label_names import IGNORE
from cfseg.errors import UsageError
from cfseg.feed.planning import Facts, intensity, plan_stage, target_spacing, topology
from cfseg.geometry import Geometry
from cfseg.recipes.training import StageTraining
from cfseg.volume import LabelMap, Volume

SHAPE = (20, 24, 24)


def case(seed: int, spacing_mm=(2.5, 0.8, 0.8), hu=60.0) -> tuple[Volume, LabelMap]:
    rng = np.random.default_rng(seed)
    geometry = Geometry.from_spacing(SHAPE, spacing_mm)
    ids = np.zeros(SHAPE, dtype=np.uint8)
    ids[6:12, 4:20, 4:20] = rng.integers(1, 14)
    scan = rng.normal(hu + 20 * seed, 40, SHAPE)
    scan[7, 4:9] = -900  # air in a bowel
    return Volume(scan.round().astype(np.int16), geometry), LabelMap(ids, geometry)


def facts(spacing_mm, shape=(100, 400, 400)) -> Facts:
    return Facts((0, shape[0]), shape, spacing_mm, np.array([-10, 70]), np.array([5, 5]))


def stage(**values) -> StageTraining:
    return StageTraining.model_validate({"epochs": 1, "patch": (64, 160, 224)} | values)


@pytest.mark.parametrize("window", [None, (-150.0, 250.0)])
def test_intensities_are_those_of_nnunets_fingerprint(window) -> None:
    extractor = pytest.importorskip(
        "nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor"
    )
    cases = [case(seed) for seed in range(4)]
    sampled = np.concatenate([
        extractor.DatasetFingerprintExtractor.collect_foreground_intensities(
            labels.ids[None], volume.hu[None].astype(np.float32), num_samples=100_000
        )[0][0]
        for volume, labels in cases
    ])  # fmt: skip
    if window:
        sampled = sampled.clip(*window)
    found = intensity([Facts.of(*pair, z_margin_slices=10) for pair in cases], window)
    ends = window or np.percentile(sampled, (0.5, 99.5))
    stock = [*ends, sampled.mean(), sampled.std()]
    assert [found.lower, found.upper, found.mean, found.std] == pytest.approx(stock, abs=1.0)


def test_each_case_counts_alike_and_one_without_labels_does_not() -> None:
    small = Facts((0, 1), (1, 1, 1), (1, 1, 1), np.array([0]), np.array([1]))
    large = Facts((0, 1), (1, 1, 1), (1, 1, 1), np.array([100]), np.array([10_000]))
    none = Facts((0, 1), (1, 1, 1), (1, 1, 1), *[np.array([], dtype=np.int64)] * 2)
    found = intensity([small, large, none])
    assert (found.mean, found.std, found.lower, found.upper) == (50, 50, 0, 100)
    with pytest.raises(UsageError, match="no case has a labelled voxel"):
        intensity([none])
    with pytest.raises(UsageError, match="have 100 HU"):
        intensity([large])


def test_a_case_is_cut_to_its_labelled_slices_and_a_margin() -> None:
    volume, labels = case(0)
    assert Facts.of(volume, labels, 3).slices == (3, 15)
    assert Facts.of(volume, labels, 10).slices == (0, 20)
    assert Facts.of(volume, LabelMap.empty(volume.geometry), 3).slices == (0, 20)


def test_ignored_voxels_are_not_labelled_ones() -> None:
    volume, labels = case(0)
    before = Facts.of(volume, labels, 3)
    ids = labels.ids.copy()
    ids[labels.ids == 0] = IGNORE
    after = Facts.of(volume, LabelMap(ids, labels.geometry), 3)
    assert after.slices == before.slices
    assert np.array_equal(after.voxels, before.voxels)


def test_facts_come_back_from_a_file_and_a_damaged_one_is_no_loss(tmp_path) -> None:
    found = Facts.of(*case(1), z_margin_slices=2)
    file = tmp_path / "a.npz"
    found.save(file)
    again = Facts.load(file)
    assert again is not None
    assert (again.slices, again.shape, again.spacing_mm) == (
        found.slices, found.shape, found.spacing_mm,
    )  # fmt: skip
    assert np.array_equal(again.hu, found.hu)
    assert np.array_equal(again.voxels, found.voxels)
    whole = file.read_bytes()
    for damaged in (b"", whole[:100], whole[:-300]):
        file.write_bytes(damaged)
        assert Facts.load(file) is None
    assert Facts.load(tmp_path / "none.npz") is None


SPACINGS_MM = st.tuples(*[st.floats(0.4, 8.0)] * 3)


def planner(cases: list[Facts], labels: int = 14):
    """Return nnU-Net's planner of some cases, without folders."""
    module = pytest.importorskip(
        "nnunetv2.experiment_planning.experiment_planners.default_experiment_planner"
    )
    made = module.ExperimentPlanner.__new__(module.ExperimentPlanner)
    values = SimpleNamespace(
        dataset_json={
            "channel_names": {"0": "CT"}, "labels": dict.fromkeys(range(labels)), "numTraining": 50,
        },
        dataset_fingerprint={
            "spacings": [fact.spacing_mm for fact in cases],
            "shapes_after_crop": [fact.shape for fact in cases],
            "median_relative_size_after_cropping": 1.0,
        },
        overwrite_target_spacing=None, suppress_transpose=True, anisotropy_threshold=3,
        UNet_base_num_features=32, UNet_class=module.PlainConvUNet,
        UNet_reference_val_3d=560000000, UNet_reference_val_corresp_GB=8,
        UNet_reference_val_corresp_bs_3d=2, UNet_vram_target_GB=8,
        UNet_featuremap_min_edge_length=4, UNet_blocks_per_stage_encoder=(2,) * 14,
        UNet_blocks_per_stage_decoder=(2,) * 13, UNet_min_batch_size=2, UNet_max_features_3d=320,
        max_dataset_covered=0.05, preprocessor_name="DefaultPreprocessor",
    )  # fmt: skip
    made.__dict__.update(vars(values))
    # It would build the network to know how large a patch may be; that is not what is compared.
    made.static_estimate_VRAM_usage = lambda patch, *_: 240.0 * np.prod(patch)
    return made


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.builds(facts, SPACINGS_MM, st.tuples(*[st.integers(10, 600)] * 3)), min_size=1,
        max_size=5,
    )
)  # fmt: skip
def test_the_spacing_is_nnunets(cases) -> None:
    stock = planner(cases).determine_fullres_target_spacing()
    assert target_spacing(cases) == pytest.approx(tuple(stock), rel=1e-12)


@settings(deadline=None, max_examples=200)
@given(st.tuples(*[st.integers(4, 320)] * 3), SPACINGS_MM)
def test_the_topology_is_nnunets(patch, spacing_mm) -> None:
    module = pytest.importorskip(
        "nnunetv2.experiment_planning.experiment_planners.network_topology"
    )
    _, strides, kernels, padded, _ = module.get_pool_and_conv_props(spacing_mm, patch, 4, 999999)
    found = topology(patch, spacing_mm)
    assert (found.strides, found.kernel_sizes) == (strides, kernels)
    assert found.patch == tuple(int(n) for n in padded)


@pytest.mark.parametrize(
    ("spacing_mm", "shape"),
    [((2.5, 0.8, 0.8), (120, 480, 480)), ((1.5, 1.5, 1.5), (160, 200, 240)),
     ((5.0, 0.75, 0.75), (40, 512, 512))],
)  # fmt: skip
def test_the_network_is_the_one_that_nnunets_planner_makes(spacing_mm, shape) -> None:
    cases = [facts(spacing_mm, shape)] * 3
    stock = planner(cases).get_plans_for_configuration(
        np.array(spacing_mm), np.array(shape), "3d_fullres", float(np.prod(shape) * 50), {}
    )
    patch = tuple(int(n) for n in stock["patch_size"])
    found = plan_stage("organ", stage(patch=patch), cases)
    kwargs = stock["architecture"]["arch_kwargs"]
    assert found.patch == patch
    assert found.spacing_mm == pytest.approx(tuple(stock["spacing"]))
    assert found.architecture.features == tuple(kwargs["features_per_stage"])
    assert found.architecture.strides == tuple(map(tuple, kwargs["strides"]))
    assert found.architecture.kernel_sizes == tuple(map(tuple, kwargs["kernel_sizes"]))
    assert found.architecture.n_conv_encoder == tuple(kwargs["n_conv_per_stage"])
    assert found.architecture.n_conv_decoder == tuple(kwargs["n_conv_per_stage_decoder"])
    assert len(found.deep_supervision) == len(found.architecture.n_conv_decoder)


def test_what_the_recipe_gives_stays() -> None:
    given = stage(
        patch=(16, 32, 32), spacing_mm=(8, 8, 8), features=(4, 8, 16), n_conv_encoder=1,
        n_conv_decoder=(1, 2), window_hu=(-150, 250),
    )  # fmt: skip
    found = plan_stage("tumor", given, [facts((2.5, 0.8, 0.8))])
    assert (found.spacing_mm, found.patch) == ((8, 8, 8), (16, 32, 32))
    assert found.architecture.strides == ((1, 1, 1), (2, 2, 2), (2, 2, 2))
    assert found.architecture.n_conv_decoder == (1, 2)
    assert (found.intensity.lower, found.intensity.upper) == (-150, 250)
    assert found.labels == tuple(range(15))
    assert plan_stage("coarse", given, [facts((1, 1, 1))]).labels == tuple(range(14))


@pytest.mark.parametrize(
    ("values", "word"),
    [({"patch": (6, 6, 6)}, "stages"), ({"patch": (18, 32, 32), "features": (4, 8, 8)}, "patch")],
)
def test_a_recipe_that_makes_no_network_is_refused(values, word) -> None:
    with pytest.raises(UsageError, match=rf"training\.organ: .*{word}"):
        plan_stage("organ", stage(spacing_mm=(1, 1, 1), **values), [facts((1, 1, 1))])
