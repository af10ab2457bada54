import numpy as np
import pytest
from matplotlib.image import imread
from small_outputs import patient, save
from typer.testing import CliRunner

from cfseg.cli.root import app
from cfseg.errors import InputError, UsageError
from cfseg.geometry import Geometry
from cfseg.reports.qualitative import (
    Row,
    draw_rows,
    find_cases,
    good_and_bad,
    largest_differences,
    write_figures,
)
from cfseg.volume import LabelMap, Volume


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Five cases: what is missing of the liver grows, in the last the lesion is missing too."""
    folder = tmp_path_factory.mktemp("cohort")
    hu, ids = patient()
    for number in range(5):
        save(folder / "ct" / f"c{number}_0000.nii.gz", hu)
        save(folder / "ref" / f"c{number}.nii.gz", ids)
        made = ids.copy()
        made[5 : 5 + number][made[5 : 5 + number] == 1] = 0
        save(folder / "two" / f"c{number}.nii.gz", made)
        if number == 4:
            made[made == 14] = 0
        save(folder / "cfs" / f"c{number}.nii.gz", made)
    return folder


def test_best_and_worst():
    scores = {"a": 0.9, "b": 0.5, "c": 0.7, "d": 0.95, "e": 0.1}
    assert good_and_bad(scores) == (["d", "a"], ["b", "e"])
    assert good_and_bad({"a": 0.9, "b": 0.5, "c": 0.7}) == (["a", "c"], ["b"])
    assert good_and_bad({"a": 0.9}) == (["a"], [])
    assert good_and_bad({}) == ([], [])


def test_three_pictures_and_what_they_show(cohort, tmp_path):
    masks = {"two-stage": cohort / "two", "CFS": cohort / "cfs"}
    written = write_figures(cohort / "ct", cohort / "ref", masks, tmp_path).pictures
    assert [path.name for path in written] == [
        "good-and-bad.png",
        "bad-organs.png",
        "bad-tumors.png",
    ]
    assert all(imread(path).std() > 0.05 for path in written)


def test_differences_are_outlined_and_pointed_to():
    geometry = Geometry.from_spacing((3, 40, 40), (4.0, 2.0, 2.0))
    reference = np.zeros((3, 40, 40), dtype=np.uint8)
    reference[1, 5:15, 5:15] = 1
    reference[1, 25:30, 25:30] = 3
    made = reference.copy()
    made[1, 5:15, 5:10] = 0
    maps = {"CFS": LabelMap(made, geometry), "reference": LabelMap(reference, geometry)}
    volume = Volume(np.zeros((3, 40, 40), dtype=np.int16), geometry)
    figure = draw_rows([Row("c", volume, maps, (1, 0, 0), (1, 3))])
    first, last = figure.axes
    arrows = [text for text in first.texts if getattr(text, "arrow_patch", None)]
    assert [tuple(round(v) for v in arrow.xy) for arrow in arrows] == [(7, 9)]
    assert len(first.collections) == 1
    assert not last.collections
    assert not [text for text in last.texts if getattr(text, "arrow_patch", None)]
    # Only the spleen counts here, and it is as it should be.
    (first, _) = draw_rows([Row("c", volume, maps, (1, 0, 0), (3,))]).axes
    assert not first.collections


def test_small_differences_get_no_arrow():
    wrong = np.zeros((20, 20), dtype=bool)
    wrong[2:4, 2:4] = True
    wrong[10:18, 10:18] = True
    assert largest_differences(wrong, 1.0) == [(13, 13)]
    assert len(largest_differences(wrong, 20.0)) == 2
    assert largest_differences(np.zeros((4, 4), dtype=bool), 1.0) == []


def test_cases_without_all_files_are_left_out(cohort, tmp_path):
    save(tmp_path / "one" / "c2.nii.gz", patient()[1])
    found = find_cases(cohort / "ct", cohort / "ref", {"m": tmp_path / "one"})
    assert [case.name for case in found] == ["c2"]
    with pytest.raises(InputError, match="no case has"):
        find_cases(cohort / "ct", cohort / "ref", {"m": tmp_path / "one"}, ["c1"])
    with pytest.raises(UsageError, match="--masks"):
        write_figures(cohort / "ct", cohort / "ref", {}, tmp_path)


def test_command(cohort, tmp_path):
    call = ["figure", str(cohort / "ct"), str(cohort / "ref"), "--masks", f"CFS={cohort / 'cfs'}",
            "-o", str(tmp_path), "--cases", "c0,c4", "-q"]  # fmt: skip
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0
    assert (tmp_path / "bad-tumors.png").is_file()
    wrong = [*call[:4], "nonsense", *call[5:]]
    assert CliRunner().invoke(app, wrong).exit_code == 2
