from dataclasses import fields, replace
from itertools import product
from math import pi, sqrt

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from cfseg.feed.augmentation import (
    Augmentation,
    Draw,
    augment,
    crop_shape,
    crop_shape_of,
    draw,
)
from cfseg.plan import Intensity
from cfseg.recipes.recipe import load

CT = Intensity(lower=-160, upper=240, mean=40, std=80)
PATCH = (9, 12, 14)
CROP = (15, 20, 22)
IGNORE = 255
VALUES = (0, 1, 2, 7, 13, IGNORE)
EVERYTHING = Augmentation(
    rotation_probability=0.5, scale_probability=0.5, elastic_probability=0.5, noise_probability=0.5,
    blur_probability=0.5, contrast_probability=0.5, resolution_probability=0.5, mirror=True,
)  # fmt: skip
"""Often enough that ten samples show all of it."""


def crops(count: int = 1, shape=CROP) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(7)
    hu = torch.randint(-160, 240, (count, *shape), generator=random, dtype=torch.int16)
    which = torch.randint(len(VALUES), (count, *shape), generator=random)
    return hu, torch.tensor(VALUES, dtype=torch.uint8)[which]


def middle(volume: torch.Tensor, patch=PATCH) -> torch.Tensor:
    start = [(n - p) // 2 for n, p in zip(volume.shape, patch, strict=True)]
    return volume[tuple(slice(s, s + p) for s, p in zip(start, patch, strict=True))]


def z_scores(hu: torch.Tensor) -> torch.Tensor:
    return (hu.float() - CT.mean) / CT.std


def one(change: Draw, hu: torch.Tensor, labels: torch.Tensor, patch=PATCH):
    scan, ids = augment([hu], [labels], [change], patch, CT)
    return scan[0, 0], ids[0]


# -- exactness -----------------------------------------------------------------------------------


@pytest.mark.parametrize("crop", [CROP, PATCH, (10, 13, 14), (9, 20, 15)])
def test_nothing_drawn_gives_the_middle_of_the_crop(crop) -> None:
    hu, labels = crops(2, crop)
    scan, ids = augment(hu, labels, [Draw(), Draw()], PATCH, CT)
    assert (scan.shape, scan.dtype) == ((2, 1, *PATCH), torch.float32)
    assert (ids.shape, ids.dtype) == ((2, *PATCH), torch.uint8)
    for i in range(2):
        assert torch.equal(scan[i, 0], z_scores(middle(hu[i])))
        assert torch.equal(ids[i], middle(labels[i]))
    assert scan.is_contiguous()


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
def test_a_mirror_is_exact(axes) -> None:
    hu, labels = crops()
    mirror = tuple(axis in axes for axis in range(3))
    scan, ids = one(Draw(mirror=mirror), hu[0], labels[0])
    assert torch.equal(scan, z_scores(middle(hu[0])).flip(axes))
    assert torch.equal(ids, middle(labels[0]).flip(axes))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_quarter_turn_moves_each_voxel_to_another(axis, turns) -> None:
    hu, labels = crops(shape=(13, 13, 13))
    patch, angles = (9, 9, 9), [0.0, 0.0, 0.0]
    angles[axis] = turns * pi / 2
    scan, ids = one(Draw(angles=tuple(angles)), hu[0], labels[0], patch)
    plane = [a for a in range(3) if a != axis]
    back = turns if axis == 1 else -turns  # of (z, y, x) the plane (z, x) turns the other way
    expected = torch.rot90(middle(hu[0], patch), back, plane)
    assert torch.equal(ids, torch.rot90(middle(labels[0], patch), back, plane))
    assert (scan - z_scores(expected)).abs().max() * CT.std < 0.01  # HU


def test_a_turn_within_the_slices_is_a_turn_around_z() -> None:
    hu, labels = crops(shape=(9, 20, 22))
    change = Draw(angles=(0.4, 0, 0), scale=1.2)
    whole, flat = (one(replace(change, flat=f), hu[0], labels[0]) for f in (False, True))
    assert not torch.equal(whole[1], flat[1])  # the whole one scales along z
    change = replace(change, scale=1.0)
    whole, flat = (one(replace(change, flat=f), hu[0], labels[0]) for f in (False, True))
    assert torch.equal(whole[1], flat[1])
    assert torch.allclose(whole[0], flat[0], atol=1e-4)
    deep = torch.cat([hu[0], hu[0].flip(0)])[4:17], torch.cat([labels[0], labels[0]])[4:17]
    inner = one(replace(change, flat=True), *deep)
    assert torch.equal(inner[1], one(replace(change, flat=True), deep[0][2:11], deep[1][2:11])[1])


@pytest.mark.parametrize("shift", [(0, 0, 1), (1, -2, 3), (-3, 2, 0)])
def test_a_crop_moved_by_whole_voxels_moves_the_window_as_far(shift) -> None:
    hu, labels = crops(shape=(21, 26, 28))
    half_a_turn = Draw(angles=(pi, 0, 0))  # through the warp, and with it from voxel to voxel
    region = tuple(slice(3 + s, 18 + s + 5 * (axis > 0)) for axis, s in enumerate(shift))
    scan, ids = one(half_a_turn, hu[0][region], labels[0][region])
    assert torch.equal(ids, middle(labels[0][region]).flip(1, 2))
    expected = z_scores(middle(hu[0][region])).flip(1, 2)
    assert (scan - expected).abs().max() * CT.std < 0.01


def test_beyond_the_crop_is_air_without_label() -> None:
    hu, labels = torch.full(PATCH, 100, dtype=torch.int16), torch.full(PATCH, 5, dtype=torch.uint8)
    scan, ids = one(Draw(scale=2.0), hu, labels)
    assert scan[0, 0, 0] == pytest.approx((CT.lower - CT.mean) / CT.std)
    assert ids[0, 0, 0] == 0
    assert scan[4, 6, 7] == pytest.approx((100 - CT.mean) / CT.std)
    assert ids[4, 6, 7] == 5


def test_labels_gain_no_value_and_ignored_ones_stay() -> None:
    hu, labels = crops(20)
    _, ids = augment(hu, labels, draw(EVERYTHING, 1, 0, range(20)), PATCH, CT)
    found = [set(row.unique().tolist()) for row in ids]
    assert all(values <= set(VALUES) for values in found)
    assert all(IGNORE in values for values in found)


def test_the_labels_move_with_the_scan() -> None:
    hu, labels = crops(20, (40, 40, 40))
    half = torch.arange(40) < 21
    hu[:], labels[:] = torch.where(half, 200, -100)[:, None], half[:, None] * 3
    settings = replace(
        EVERYTHING, noise_probability=0, blur_probability=0, resolution_probability=0,
        contrast_probability=0, brightness_probability=0, gamma_probability=0,
        gamma_inverted_probability=0, elastic_alpha=(0, 300),
    )  # fmt: skip
    scan, ids = augment(hu, labels, draw(settings, 3, 0, range(20)), (24, 24, 24), CT)
    bright = scan[:, 0] > (50 - CT.mean) / CT.std
    assert (bright == (ids == 3)).float().mean() > 0.998


def test_a_crop_smaller_than_the_patch_is_refused() -> None:
    hu, labels = crops(shape=(9, 11, 14))
    with pytest.raises(ValueError, match="9, 11, 14"):
        augment(hu, labels, [Draw()], PATCH, CT)


# -- randomness ----------------------------------------------------------------------------------


def test_a_window_does_not_depend_on_its_batch() -> None:
    hu, labels = crops(10)
    together = augment(hu, labels, draw(EVERYTHING, 5, 17, range(10)), PATCH, CT)
    for sample in (3, 9, 0):
        alone = draw(EVERYTHING, 5, 17, [sample])
        scan, ids = augment(hu[sample : sample + 1], [labels[sample]], alone, PATCH, CT)
        assert torch.equal(scan[0], together[0][sample])
        assert torch.equal(ids[0], together[1][sample])


def test_what_is_drawn_depends_on_seed_step_and_sample() -> None:
    places = list(product((0, 1, 2**32 - 1), (0, 1, 2_000_000), (0, 1)))
    drawn = {(seed, step, i): draw(EVERYTHING, seed, step, [i])[0] for seed, step, i in places}
    assert len({d.seeds for d in drawn.values()}) == len(drawn) == 18
    for (seed, step, sample), before in drawn.items():
        assert draw(EVERYTHING, seed, step, [sample])[0] == before


def test_the_crops_are_left_as_they_are() -> None:
    hu, labels = crops(10)
    before = hu.clone(), labels.clone()
    augment(hu, labels, draw(EVERYTHING, 2, 0, range(10)), PATCH, CT)
    assert torch.equal(hu, before[0])
    assert torch.equal(labels, before[1])
    floats = hu.float()  # a source may give these
    augment(floats, labels, draw(EVERYTHING, 2, 0, range(10)), PATCH, CT)
    assert torch.equal(floats, hu.float())


# -- distributions -------------------------------------------------------------------------------

SAMPLES = 6000
NNUNET_V1 = {
    # of nnUNetTrainerV2 (setup_DA_params, get_moreDA_augmentation):
    # share of samples, lowest, highest, median where drawn
    "angles": (0.2, -pi / 6, pi / 6, 0.0),
    "scale": (0.2, 0.7, 1.4, 1.0),
    "elastic_alpha": (0.2, 0.0, 900.0, 450.0),
    "elastic_sigma": (1.0, 9.0, 13.0, 11.0),
    "noise": (0.1, 0.0, 0.1, 0.05),
    "blur": (0.2 * 0.5, 0.5, 1.0, 0.75),  # of a sample, of its channel
    "brightness": (0.15, 0.75, 1.25, 1.0),
    "contrast": (0.15, 0.75, 1.25, 1.0),
    "resolution": (0.25 * 0.5, 0.5, 1.0, 0.75),
    "gamma_inverted": (0.1, 0.7, 1.5, 1.0),
    "gamma": (0.3, 0.7, 1.5, 1.0),
}


@pytest.fixture(scope="module")
def many() -> list[Draw]:
    settings = Augmentation(elastic_probability=0.2, mirror=True)
    return [made for step in range(SAMPLES // 2) for made in draw(settings, 0, step, range(2))]


@pytest.mark.parametrize("name", NNUNET_V1)
def test_parameters_are_distributed_as_in_nnunet_v1(name, many) -> None:
    share, lowest, highest, median = NNUNET_V1[name]
    nothing = getattr(Draw(), name)
    drawn = [getattr(d, name) for d in many if share == 1 or getattr(d, name) != nothing]
    assert len(drawn) / SAMPLES == pytest.approx(share, abs=4 * sqrt(share * (1 - share) / SAMPLES))
    values = np.array(drawn).ravel()
    extent = highest - lowest
    assert lowest <= values.min() < lowest + 0.02 * extent
    assert highest - 0.02 * extent < values.max() <= highest
    assert abs(np.median(values) - median) < 0.07 * extent
    for side in (values[values < median], values[values > median]):  # each half is uniform
        assert np.mean(side) == pytest.approx((side.min() + side.max()) / 2, abs=0.03 * extent)


def test_mirrors_are_drawn_where_asked_for(many) -> None:
    assert np.mean([d.mirror for d in many], axis=0) == pytest.approx(0.5, abs=0.03)
    assert not any(any(d.mirror) for d in draw(Augmentation(), 0, 0, range(50)))


def test_flat_patches_are_turned_within_the_slices() -> None:
    training = load("paper").training
    flat, thick = (Augmentation.of(training, patch) for patch in ((64, 160, 224), (96, 160, 192)))
    assert (flat.flat, thick.flat) == (True, False)
    drawn = draw(flat, 0, 0, range(300))
    angles = np.array([d.angles for d in drawn])
    assert not angles[:, 1:].any()
    assert abs(angles[:, 0]).max() > 0.9 * pi
    assert np.allclose(Draw(flat=True, scale=1.3).matrix(), np.diag([1, 1.3, 1.3]))
    assert flat.elastic_probability == training.elastic_probability == 0.2
    assert not flat.mirror


@pytest.mark.parametrize("flat", [False, True])
def test_elastic_displacements_are_those_of_nnunet_v1(flat) -> None:
    from cfseg.feed.augmentation import _displaced

    shape, sigma, alpha = ((60, 72) if flat else (56, 60, 64)), 9.0, 100.0 if flat else 450.0
    random = np.random.default_rng(0)
    theirs = [
        alpha * gaussian_filter(random.uniform(-1, 1, shape), sigma, mode="constant")
        for _ in range(40)
    ]
    unit = torch.eye(len(shape), dtype=torch.float64)
    draws = [
        Draw(flat=flat, elastic_alpha=alpha, elastic_sigma=sigma, seeds=(i, 0)) for i in range(40)
    ]
    ours = [
        field.numpy()
        for d in draws
        for field in _displaced(d, shape, unit, torch.device("cpu")).movedim(-1, 0)
    ]
    core = tuple(slice(n // 2 - 10, n // 2 + 10) for n in shape)

    def spread(found: list[np.ndarray], of) -> float:
        return float(np.sqrt(np.mean([np.mean(of(field[core]) ** 2) for field in found])))

    for of in (lambda f: f, lambda f: np.diff(f, axis=0), lambda f: np.diff(f, axis=-1)):
        assert spread(ours, of) == pytest.approx(spread(theirs, of), rel=0.2)
    exact = alpha * sqrt((1 / 3) / (2 * sqrt(pi) * sigma) ** len(shape))
    assert spread(ours, lambda f: f) == pytest.approx(exact, rel=0.12)


# -- beside nnU-Net's own ------------------------------------------------------------------------


def applied(transform, scan: torch.Tensor, **parameters) -> torch.Tensor:
    return transform._apply_to_image(scan[None].clone(), **parameters)[0]


def test_intensities_change_as_by_nnunets_transforms() -> None:
    pytest.importorskip("batchgeneratorsv2", reason="comes with nnU-Net")
    from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform
    from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
    from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform

    hu, labels = crops()
    scan, channel = z_scores(middle(hu[0])), torch.tensor([0])
    number = {"multipliers": torch.tensor([1.2]), "apply_to_channel": channel}
    gamma = {"gamma": torch.tensor([0.8]), "apply_to_channel": channel,
             "retain_stats": torch.tensor([True])}  # fmt: skip
    coarser = {"apply_to_channel": channel, "scales": torch.full((1, 3), 0.6)}
    raised, lost = GammaTransform(1, 0, False, 1, 1), SimulateLowResolutionTransform(1, 0, 1, None)
    expected = {
        Draw(brightness=1.2): scan * 1.2,
        Draw(contrast=1.2): applied(ContrastTransform(1, True, False), scan, **number),
        Draw(resolution=0.6): applied(lost, scan, **coarser),
        Draw(gamma=0.8): applied(raised, scan, **gamma, invert_image=torch.tensor([False])),
        Draw(gamma_inverted=0.8): applied(raised, scan, **gamma, invert_image=torch.tensor([True])),
    }
    for change, theirs in expected.items():
        assert not torch.allclose(theirs, scan)
        assert torch.allclose(one(change, hu[0], labels[0])[0], theirs, atol=1e-5), change


def test_blur_is_scipys() -> None:
    hu, labels = crops()
    sigma = (0.5, 0.8, 1.0)
    theirs = gaussian_filter(z_scores(middle(hu[0])).numpy(), sigma, mode="mirror")
    found, _ = one(Draw(blur=sigma), hu[0], labels[0])
    assert np.allclose(found.numpy(), theirs, atol=1e-5)


def test_noise_is_as_strong_as_drawn() -> None:
    hu, labels = crops(shape=(30, 30, 30))
    plain, _ = one(Draw(), hu[0], labels[0], (30, 30, 30))
    noise = one(Draw(noise=0.1, seeds=(0, 4)), hu[0], labels[0], (30, 30, 30))[0] - plain
    assert noise.std() == pytest.approx(0.1, rel=0.02)
    assert abs(noise.mean()) < 0.003


@pytest.mark.parametrize("flat", [False, True])
def test_a_warp_is_nnunets(flat) -> None:
    pytest.importorskip("batchgeneratorsv2", reason="comes with nnU-Net")
    from batchgeneratorsv2.transforms.spatial import spatial

    crop, patch = ((9, 20, 22), (9, 12, 14)) if flat else ((14, 20, 22), (8, 12, 14))
    hu, labels = crops(shape=crop)
    angles, scale = (0.3, 0.0 if flat else -0.4, 0.0 if flat else 0.2), 1.1
    theirs = spatial.SpatialTransform(patch[1:] if flat else patch, 0, False)
    affine = (
        spatial.create_affine_matrix_2d(angles[0], [scale] * 2)
        if flat
        else spatial.create_affine_matrix_3d(angles, [scale] * 3)
    )
    grid = theirs._get_base_grid_clone() @ torch.from_numpy(affine.T).float()
    grid = spatial._convert_my_grid_to_grid_sample_grid(grid, crop[1:] if flat else crop)
    above_air = hu[0].float() - CT.lower
    volume = above_air if flat else above_air[None]
    expected = theirs._apply_to_image(volume, grid=grid, center_location_in_pixels=None)
    scan, _ = one(Draw(flat=flat, angles=angles, scale=scale), hu[0], labels[0], patch)
    assert torch.allclose(scan, z_scores(expected.reshape(patch) + CT.lower), atol=1e-4)


def test_defaults_are_those_of_stock_nnunet() -> None:
    """Except for how scales are drawn: version 1 has as many below 1 as above."""
    pytest.importorskip("nnunetv2")
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    limit = (-pi / 6, pi / 6)
    made = nnUNetTrainer.get_training_transforms((96, 160, 192), limit, None, (0, 1, 2), False)
    spatial, noise, blur, brightness, contrast, coarser, inverted, gamma, *_ = made.transforms
    ours = Augmentation()
    assert spatial.p_rotation == ours.rotation_probability
    assert spatial.p_scaling == ours.scale_probability
    assert spatial.scaling == ours.scale
    for random, values, probability, of_channel in (
        (noise, random_range(noise, "noise_variance"), ours.noise_probability, 1),
        (blur, random_range(blur, "blur_sigma"), ours.blur_probability, 0.5),
        (brightness, random_range(brightness, "multiplier_range"), ours.brightness_probability, 1),
        (contrast, random_range(contrast, "contrast_range"), ours.contrast_probability, 1),
        (coarser, random_range(coarser, "scale"), ours.resolution_probability, 0.5),
        (inverted, random_range(inverted, "gamma"), ours.gamma_inverted_probability, 1),
        (gamma, random_range(gamma, "gamma"), ours.gamma_probability, 1),
    ):
        assert random.apply_probability * random.transform.p_per_channel == probability
        assert random.transform.p_per_channel == of_channel
        assert values in {getattr(ours, f.name) for f in fields(ours)}


def random_range(random, name: str) -> tuple[float, float]:
    found = getattr(random.transform, name)
    return getattr(found, "contrast_range", found)


# -- crops ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("patch", [(64, 160, 224), (96, 160, 192), (48, 48, 48), (16, 32, 32)])
def test_crops_are_as_large_as_nnunets(patch) -> None:
    pytest.importorskip("nnunetv2")
    from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size

    settings = Augmentation.of(load("paper").training, patch)
    limit = np.radians(settings.degrees)
    theirs = get_patch_size(patch, *[(-limit, limit)] * 3, (0.85, 1.25))
    expected = (patch[0] if settings.flat else theirs[0], *theirs[1:])
    assert crop_shape(settings, patch) == expected


def test_a_crop_of_its_own_shape_gives_the_same_window() -> None:
    patch, most = (20, 24, 28), (60, 64, 64)
    settings = replace(EVERYTHING, elastic_alpha=(0, 100), noise_probability=0)
    hu, labels = crops(1, most)
    smaller = 0
    for made in draw(settings, 8, 0, range(12)):
        shape = crop_shape_of(made, patch, most)
        assert all(p <= s <= m for p, s, m in zip(patch, shape, most, strict=True))
        smaller += shape != most
        whole = one(made, hu[0], labels[0], patch)
        part = one(made, middle(hu[0], shape), middle(labels[0], shape), patch)
        assert (whole[1] == part[1]).float().mean() > 0.9999  # a tie may fall otherwise
        assert torch.allclose(whole[0], part[0], atol=0.01)
    assert smaller >= 10
    assert crop_shape_of(Draw(), patch, most) == patch
    assert crop_shape_of(Draw(flat=True, angles=(0.5, 0, 0)), patch, most)[0] == patch[0]
