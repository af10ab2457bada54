"""Several acquisitions in one series: told apart, counted, and each read for itself."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pydicom")
pytest.importorskip("highdicom")
from pydicom.dataset import Dataset
from small_series import ALL, SLICES, Edit, hu_stack, nothing, put, save

from cfseg.errors import InputError
from cfseg.io import ReadingOptions, list_inputs, read_scan
from cfseg.io.dicom import count_acquisitions, read_series

HINT = "--all-series"


def phases(folder: Path, *edits: Edit) -> list[Path]:
    """One folder with a series for each edit; the j-th is brighter by j HU."""
    for j, edit in enumerate(edits):

        def brighter(number: int, image: Dataset, j: int = j, edit: Edit = edit) -> None:
            image.SOPInstanceUID = f"1.2.{j}.{number}"
            image.InstanceNumber = number * len(edits) + j
            raw = (hu_stack()[number].astype(int) + 1024 + j).astype("<u2")
            image.PixelData = raw.tobytes()
            edit(number, image)

        save(folder, brighter, name=f"{(j * 7) % 5}-{{}}")
    return sorted(folder.iterdir())


def numbered(word: str, *values: object) -> list[Edit]:
    return [put(ALL, **{word: value}) for value in values]


@pytest.mark.parametrize(
    "edits",
    [
        numbered("AcquisitionNumber", 2, 10, 11),
        numbered("TemporalPositionIdentifier", 1, 2),
        numbered("AcquisitionTime", "101112.5", "101115"),
        numbered("ContentTime", "101112", "101115"),
        [nothing, nothing, nothing],  # by InstanceNumber
    ],
    ids=["AcquisitionNumber", "TemporalPosition", "AcquisitionTime", "ContentTime", "Instance"],
)
def test_each_is_read_in_order(tmp_path: Path, edits):
    files = phases(tmp_path / "s", *edits)
    assert count_acquisitions(files) == len(edits)
    for j in range(len(edits)):
        stored = read_series(files, acquisition=j + 1)
        np.testing.assert_array_equal(stored.values.transpose(2, 1, 0), hu_stack() + j)
        assert f"acquisition: {j + 1} of {len(edits)}" in stored.notes
    with pytest.raises(InputError, match=f"{len(edits)} acquisitions.*{HINT}") as caught:
        read_series(files)
    assert caught.value.code == "E_DUPLICATE_SLICES"
    with pytest.raises(InputError, match=f"from 1 to {len(edits)}"):
        read_series(files, acquisition=len(edits) + 1)


def test_the_hint_works(tmp_path: Path):
    phases(tmp_path / "s", *numbered("AcquisitionNumber", 1, 2))
    found = list_inputs([tmp_path], ReadingOptions(all_series=True)).inputs
    means = [float(read_scan(one).volume.hu.mean()) for one in found]
    assert means == pytest.approx([hu_stack().mean(), hu_stack().mean() + 1])


def test_a_plain_series_and_one_with_copies_are_one(tmp_path: Path):
    files = sorted(save(tmp_path / "s").iterdir())
    assert count_acquisitions(files) == 1
    assert "acquisition: 1 of 1" in read_series(files, acquisition=1).notes
    copies = sorted(save(tmp_path / "s", name="copy{}").iterdir())
    assert count_acquisitions(copies) == 1
    assert read_series(copies).values.shape[2] == SLICES


def half(number: int, image: Dataset) -> None:
    image.InstanceNumber = 7


def test_what_cannot_be_told_apart_is_refused_without_the_hint(tmp_path: Path):
    files = phases(tmp_path / "s", half, half)
    assert count_acquisitions(files) == 1
    with pytest.raises(InputError, match="keep the files of one") as caught:
        read_series(files)
    assert caught.value.code == "E_DUPLICATE_SLICES"
    assert HINT not in caught.value.message


def test_a_part_that_was_repeated_is_no_acquisition(tmp_path: Path):
    files = phases(tmp_path / "s", nothing, nothing)
    files = [path for path in files if path.name not in ("2-0", "2-7", "2-14")]
    assert count_acquisitions(files) == 1
    with pytest.raises(InputError, match="lie at the same place but differ"):
        read_series(files)


def test_a_damaged_file_is_refused(tmp_path: Path):
    files = sorted(save(tmp_path / "s").iterdir())
    files[3].write_bytes(files[3].read_bytes()[:200])
    with pytest.raises(InputError, match=files[3].name) as caught:
        count_acquisitions(files)
    assert caught.value.code == "E_CORRUPT"
