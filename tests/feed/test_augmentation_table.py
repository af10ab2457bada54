"""The table of docs/reference/augmentation.md, held against the code."""

import re
from pathlib import Path

import pytest

from cfseg.feed.augmentation import Augmentation
from cfseg.recipes.recipe import load

PAGE = (Path(__file__).parents[2] / "docs/reference/augmentation.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| ([^|]+?) \| (.+) \|$", PAGE, re.MULTILINE))
OURS = Augmentation()
IN_ORDER = {
    # the first words of a row: the share of windows and the range
    "elastic: factor": (OURS.elastic_probability, OURS.elastic_alpha),
    "elastic: sigma": (None, OURS.elastic_sigma),
    "turn around": (OURS.rotation_probability, (-OURS.degrees, OURS.degrees)),
    "scale": (OURS.scale_probability, OURS.scale),
    "noise": (OURS.noise_probability, OURS.noise),
    "blur": (OURS.blur_probability, OURS.blur),
    "brightness": (OURS.brightness_probability, OURS.brightness),
    "contrast": (OURS.contrast_probability, OURS.contrast),
    "low resolution": (OURS.resolution_probability, OURS.resolution),
    "gamma of the inverted": (OURS.gamma_inverted_probability, OURS.gamma),
    "gamma,": (OURS.gamma_probability, OURS.gamma),
}


@pytest.mark.parametrize("start", IN_ORDER)
def test_the_table_says_what_the_code_does(start) -> None:
    (row,) = (cells for what, cells in ROWS.items() if what.startswith(start))
    share, (lowest, highest) = IN_ORDER[start]
    expected = ["-" if share is None else f"{share:g}", f"{lowest:g} to {highest:g}"]
    assert row.split(" | ")[:2] == expected


def test_the_table_has_a_row_for_everything_that_happens() -> None:
    rows = [what for what in ROWS if what not in ("What", "---")]
    assert len(rows) == len(IN_ORDER) + 1
    assert rows[-1].startswith("mirror")
    assert not OURS.mirror


def test_what_the_page_says_of_recipes_and_flat_patches() -> None:
    paper, demo = (load(name).training for name in ("paper", "demo"))
    assert (paper.elastic_probability, demo.elastic_probability) == (0.2, 0.05)
    assert {paper.mirror, demo.mirror} == {False}
    flat = Augmentation.of(paper, paper.coarse.patch)
    assert (flat.flat, flat.degrees, flat.elastic_alpha) == (True, 180.0, (0.0, 200.0))
