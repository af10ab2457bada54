"""How far rendered crops vary: one table."""

from dataclasses import dataclass

Range = tuple[float, float]
PHASES: dict[str, float] = {"portal-venous": 0.55, "arterial": 0.15, "native": 0.2, "delayed": 0.1}
"""Share of each contrast phase; more scans without contrast than a cohort has, as those are hard.

Continued with a third of unenhanced samples, a network of a trial run went from .23 to .33 there.
"""


@dataclass(frozen=True)
class Rendering:
    r"""How often and how much.

    Probabilities are of a crop, ranges are uniform. The values are those of a trial run with real
    label maps: a network that had seen no scan but these learned to segment real ones. What was
    measured there counts less than that every kind of scan that people have is shown.

    Attributes:
        complete_weight: how often an atlas with all organs is taken, to one that lacks some.
        degrees_sd: standard deviation of the angles around (z, y, x).
        scale_sd: of the logarithm of the size, shared by the axes.
        axis_scale_sd: and of each axis by itself.
        bends_mm: size of structures and standard deviation of displacements, of each smooth field;
            its strength varies as \|N(0, 1)\| does.
        wild_probability: of means that vary more than patients do (domain randomization).
        wild_spread: factor of the standard deviation between patients.
        fine_hu: standard deviation of the texture of 6 mm.
        wide_hu: of the texture of 15 mm.
        vessel: where two random fields are this near to zero there is a vessel in the liver.
        tumor_probability: of tumors.
        distractor_probability: of cysts and stones without a tumor, a quarter: they keep
            false tumors down.
        both_probability: of cysts and stones beside tumors.
        lesion_tries: lesions that are tried before a crop goes without.
        blur_probability: of a soft kernel.
        blur: its sigma, voxels.
        thick_probability: of thick slices.
        thick: their thickness, voxels.
        hu_error_probability: of a scanner whose HU are wrong.
        hu_factor: their factor.
        hu_offset: and what is added.
        noise_hu: standard deviation, uniform in its logarithm.
        bands_probability: of dark and bright bands from side to side.
        bands_hu: their standard deviation.
        truncated_z_probability: of a scan that ends within the crop. These are ignored in the loss
            beyond, and made slabs of twenty slices work.
        slab_mm: how long the rest is.
        truncated_plane_probability: of a narrow reconstruction; with it, a spine reconstruction
            of 180 mm went from .26 to .51.
        field_mm: its diameter.
        metal_probability: of an implant with streaks.
        table_probability: of a table under a patient who has none in the atlas.
        arms_probability: of arms at the sides.
    """

    complete_weight: float = 3.0
    degrees_sd: tuple[float, float, float] = (6.0, 4.0, 4.0)
    scale_sd: float = 0.11
    axis_scale_sd: float = 0.07
    bends_mm: tuple[Range, ...] = ((72.0, 7.5), (33.0, 2.7))
    wild_probability: float = 0.25
    wild_spread: float = 2.5
    fine_hu: Range = (2.0, 8.0)
    wide_hu: Range = (1.0, 6.0)
    vessel: Range = (0.1, 0.22)
    tumor_probability: float = 0.4
    distractor_probability: float = 0.25
    both_probability: float = 0.3
    lesion_tries: int = 4
    blur_probability: float = 0.25
    blur: Range = (0.4, 0.9)
    thick_probability: float = 0.2
    thick: Range = (1.3, 2.5)
    hu_error_probability: float = 0.5
    hu_factor: Range = (0.8, 1.25)
    hu_offset: Range = (-8.0, 8.0)
    noise_hu: Range = (2.0, 32.0)
    bands_probability: float = 0.1
    bands_hu: Range = (2.0, 8.0)
    truncated_z_probability: float = 0.35
    slab_mm: Range = (60.0, 180.0)
    truncated_plane_probability: float = 0.3
    field_mm: Range = (160.0, 320.0)
    metal_probability: float = 0.03
    table_probability: float = 0.6
    arms_probability: float = 0.1
