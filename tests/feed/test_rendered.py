from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from cfseg.feed.crops import Crop, Sampling
from cfseg.feed.planning import plan_with
from cfseg.feed.rendered import Rendered
from cfseg.feed.rendering.elsewhere import KINDS
from cfseg.feed.rendering.ranges import Rendering
from cfseg.geometry import Geometry, Triple
from cfseg.labels import IGNORE, ORGAN_IDS, TUMOR
from cfseg.phantoms import tissues as t
from cfseg.phantoms.anatomy import build
from cfseg.phantoms.appearance import HU, PHASE_NAMES
from cfseg.phantoms.atlas import Atlas
from cfseg.phantoms.class_names import UNKNOWN
from cfseg.plan import Intensity
from cfseg.recipes.training import StageTraining

CPU = torch.device("cpu")
PATCH = (24, 32, 40)
CT = Intensity(lower=-900, upper=900, mean=60, std=110)
CALM = Rendering(
    bends_mm=(), wild_probability=0, tumor_probability=0, distractor_probability=0,
    blur_probability=0, thick_probability=0, hu_error_probability=0, noise_hu=(0.1, 0.2),
    bands_probability=0, truncated_z_probability=0, truncated_plane_probability=0,
    metal_probability=0, table_probability=0, arms_probability=0,
)  # fmt: skip
"""Nothing is drawn but the patient, the angles and the size."""


def anatomy(tissue: np.ndarray) -> Atlas:
    """An atlas of which all is known."""
    labels = np.where(tissue <= 13, tissue, 0).astype(np.uint8)
    return Atlas("anatomy", tissue, labels, (5.0, 5.0, 5.0), "a phantom")


GRID = Geometry.from_spacing((58, 66, 76), (5.0, 5.0, 5.0))
WHOLE = anatomy(build(np.random.default_rng(2), GRID).tissue)


def block(inner: int, outer: int = t.VISCERAL, size: int = 40) -> Atlas:
    """A cube of one tissue within another."""
    tissue = np.full((size, size, size), outer, dtype=np.uint8)
    tissue[8:-8, 8:-8, 8:-8] = inner
    return anatomy(tissue)


def source(
    *atlases: Atlas, role: str = "tumor", mm: float = 6.0, ranges: Rendering = CALM, **kwargs
) -> Rendered:
    stage = StageTraining(epochs=1, patch=PATCH, spacing_mm=(mm,) * 3, features=(4, 8))
    plan = plan_with(role, stage, (mm,) * 3, CT)
    sampling = Sampling(PATCH, 0.6, kwargs.pop("tumor_focus", 0.0))
    return Rendered(atlases, plan, sampling, CPU, ranges=ranges, **{"empty_share": 0.0} | kwargs)


def crops(one: Rendered, count: int, shape: Triple = PATCH) -> list[Crop]:
    return [one.crop(5, step, 0, shape) for step in range(count)]


def equal(one: Crop, other: Crop) -> bool:
    return one[2:] == other[2:] and all(map(torch.equal, one[:2], other[:2]))


def test_a_crop_is_of_the_range_and_shape_that_a_network_sees() -> None:
    for crop in crops(source(WHOLE, ranges=Rendering(), empty_share=0.3), 12, (26, 34, 44)):
        assert crop.hu.shape == crop.labels.shape == (26, 34, 44)
        assert (crop.hu.dtype, crop.labels.dtype) == (torch.int16, torch.uint8)
        assert crop.hu.min() >= CT.lower
        assert crop.hu.max() <= CT.upper


def test_a_crop_depends_on_seed_step_and_sample_alone() -> None:
    keys = [(seed, step, sample) for seed in (1, 2) for step in (0, 9) for sample in (0, 1)]
    one = source(WHOLE, block(1), ranges=Rendering(), empty_share=0.2)
    other = source(WHOLE, block(1), ranges=Rendering(), empty_share=0.2)
    once = [one.crop(*key, PATCH) for key in keys]
    with ThreadPoolExecutor(2) as pool:
        again = list(pool.map(lambda key: other.crop(*key, PATCH), reversed(keys)))[::-1]
    assert all(map(equal, once, again))
    assert len({crop.hu.numpy().tobytes() for crop in once}) == len(keys)


def test_labels_lie_where_their_organs_do() -> None:
    seen = set()
    for crop in crops(source(WHOLE, mm=4.0), 12, (30, 48, 56)):
        column = PHASE_NAMES.index(crop.case.split(", ")[1])
        for organ in (1, 2, 3, 5, 6, 13):  # those without contents
            here = crop.hu[crop.labels == organ]
            if len(here) > 150:
                seen.add(organ)
                mean, sd = HU[organ][column], HU[organ][4]
                assert abs(float(here.float().median()) - mean) < 4 * sd + 25, (organ, crop.case)
    assert seen >= {1, 2, 3, 13}


def test_left_stays_left() -> None:
    seen = 0
    for crop in crops(source(WHOLE, mm=8.0), 10, (40, 40, 48)):
        x = [torch.nonzero(crop.labels == kidney)[:, 2].float() for kidney in (2, 13)]
        if min(map(len, x)) > 5:
            seen += 1
            assert x[0].mean() < x[1].mean()
    assert seen > 5


def test_every_organ_is_seen() -> None:
    found = torch.stack([crop.labels for crop in crops(source(WHOLE), 40)]).unique().tolist()
    assert set(ORGAN_IDS) <= set(found)


def test_a_map_without_an_organ_has_none() -> None:
    tissue = np.where(WHOLE.tissue == 1, t.VISCERAL, WHOLE.tissue)
    for crop in crops(source(anatomy(tissue)), 8):
        assert not (crop.labels == 1).any()


def test_unknown_tissue_is_ignored_and_looks_like_something() -> None:
    labels = np.where(WHOLE.labels == 0, IGNORE, WHOLE.labels).astype(np.uint8)
    tissue = np.where(labels == IGNORE, UNKNOWN, WHOLE.tissue).astype(np.uint8)
    unknown = replace(WHOLE, tissue=tissue, labels=labels)
    for crop in crops(source(unknown), 6):
        ignored = crop.hu[crop.labels == IGNORE].float()
        assert len(ignored) > 0
        assert ignored.median() > -150
        assert not (crop.labels == 0).any()


def test_where_a_map_ends_within_a_body_the_rest_is_ignored() -> None:
    (crop,) = crops(source(block(1, size=20)), 1, (48, 48, 48))
    assert (crop.labels[0] == IGNORE).all()
    assert (crop.hu[0] < -800).all()
    (crop,) = crops(source(block(1, outer=t.AIR, size=20)), 1, (48, 48, 48))
    assert (crop.labels[0] == 0).all()


@pytest.mark.parametrize("key", ["truncated_z_probability", "truncated_plane_probability"])
def test_what_a_scan_does_not_show_is_air_and_ignored(key) -> None:
    whole = anatomy(np.full((60, 60, 60), 1, dtype=np.uint8))
    still = replace(CALM, degrees_sd=(0, 0, 0), scale_sd=0, axis_scale_sd=0)
    narrow = replace(still, **{key: 1.0}, slab_mm=(60, 61), field_mm=(90, 91))
    for crop in crops(source(whole, ranges=narrow), 4):
        ignored = crop.labels == IGNORE
        assert 0.2 < ignored.float().mean() < 0.95
        assert (crop.hu[ignored] == CT.lower).all()
        assert (crop.hu[~ignored] > -300).all()


def test_tumors_differ_from_their_organ() -> None:
    ranges = replace(CALM, tumor_probability=1.0, vessel=(0, 0))
    found = 0
    for crop in crops(source(block(1), ranges=ranges), 12):
        tumor, liver = crop.hu[crop.labels == TUMOR.id], crop.hu[crop.labels == 1]
        if "native" not in crop.case and len(tumor) > 100 and len(liver) > 100:
            found += 1
            assert abs(tumor.float().median() - liver.float().median()) > 8
    assert found > 3


def test_a_focus_on_tumors_brings_them_to_the_middle() -> None:
    ranges = replace(CALM, tumor_probability=1.0)

    def share(focus: float) -> float:
        made = crops(source(WHOLE, ranges=ranges, tumor_focus=focus), 24)
        return np.mean([bool((c.labels[6:18, 8:24, 10:30] == TUMOR.id).any()) for c in made])

    assert share(1.0) > share(0.0)


def test_a_network_without_tumors_keeps_the_organ_below() -> None:
    ranges = replace(CALM, tumor_probability=1.0)
    with_tumors, without = source(WHOLE, ranges=ranges), source(WHOLE, ranges=ranges, role="organ")
    changed = 0
    for one, other in zip(crops(with_tumors, 8), crops(without, 8), strict=True):
        tumor = one.labels == TUMOR.id
        changed += int((tumor & (other.labels > 0)).sum())
        assert torch.equal(one.hu, other.hu)
        assert not (other.labels == TUMOR.id).any()
        assert torch.equal(one.labels[~tumor], other.labels[~tumor])
    assert changed > 0


def test_distractors_change_the_scan_and_no_label() -> None:
    calm, cysts = source(block(1)), source(block(1), ranges=replace(CALM, distractor_probability=1))
    brighter = [
        int((one.hu - other.hu).abs().max())
        for one, other in zip(crops(calm, 8), crops(cysts, 8), strict=True)
    ]
    assert max(brighter) > 40
    assert not any((crop.labels == TUMOR.id).any() for crop in crops(cysts, 8))


def test_fields_without_an_abdomen_have_no_label() -> None:
    empty = crops(source(WHOLE, ranges=Rendering(), empty_share=1.0), 30)
    assert all(set(crop.labels.unique().tolist()) <= {0, IGNORE} for crop in empty)
    assert {crop.case.split(", ")[0] for crop in empty} == set(KINDS)
    assert sum(bool((crop.hu > -300).any()) for crop in empty) > 15


def test_without_an_atlas_there_are_fields_without_an_abdomen_alone() -> None:
    assert not any((crop.labels == 1).any() for crop in crops(source(), 4))


def test_complete_maps_come_more_often() -> None:
    names = [crop.case for crop in crops(source(replace(WHOLE, name="all"), block(1)), 40, PATCH)]
    assert 24 < sum("all" in name for name in names) < 40


def test_a_plan_of_other_axes_gets_the_same_crop() -> None:
    one = source(WHOLE)
    turned = source(WHOLE)
    plan = one._plan.model_copy(update={"transpose": (2, 0, 1)})
    turned._plan = plan
    turned._sampling = replace(one._sampling, patch=(40, 24, 32))
    straight = one.crop(5, 0, 0, PATCH)
    assert torch.equal(turned.crop(5, 0, 0, (40, 24, 32)).labels, straight.labels.permute(2, 0, 1))


@pytest.mark.parametrize(
    ("tissue", "limits"),
    [(t.BLADDER, (-15, 40)), (t.SOFT, (10, 100)), (t.ARTERY, (15, 420)), (t.GAS, (-900, -850))],
)
def test_tissues_of_atlases_alone_look_like_what_they_are(tissue, limits) -> None:
    (crop,) = crops(source(anatomy(np.full((60, 60, 60), tissue, dtype=np.uint8))), 1)
    assert limits[0] <= float(crop.hu[8:16, 12:20, 16:24].float().mean()) <= limits[1]


@pytest.mark.parametrize(
    ("key", "least", "most"),
    [
        ("table_probability", -800, -300),
        ("arms_probability", 250, 900),
        ("metal_probability", 850, 900),
    ],
)
def test_what_lies_beside_or_in_a_patient_is_seen_and_not_labelled(key, least, most) -> None:
    tissue = np.full((40, 50, 80), t.AIR, dtype=np.uint8)
    tissue[:, 12:38, 28:52] = t.MUSCLE
    if key == "metal_probability":
        tissue[:, 24:28, 38:42] = t.BONE
    plain, with_it = (
        source(anatomy(tissue), ranges=replace(CALM, scale_sd=0.0, **{key: p})) for p in (0.0, 1.0)
    )
    shape = (24, 40, 60)
    for before, after in zip(crops(plain, 3, shape), crops(with_it, 3, shape), strict=True):
        changed = after.hu[(after.hu - before.hu).abs() > 150]
        assert ((changed >= least) & (changed <= most)).any()
        assert torch.equal(before.labels, after.labels)
