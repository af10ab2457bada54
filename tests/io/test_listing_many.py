"""A large export is searched in time and memory that grow with its files and no faster."""

import tracemalloc
from io import BytesIO
from pathlib import Path
from time import process_time

import pytest
from small_series import make_image

from cfseg.io import case_names, list_inputs

PER_SERIES = 100
MOST_MS, MOST_KB = 1.8, 5.0
"""Of a file: 100 000 of them in 3 minutes and 500 MB."""


def export(root: Path, series: int) -> Path:
    """A folder for each series; the files differ in UIDs and positions alone."""
    image = make_image(0)
    image.SeriesInstanceUID = image.StudyInstanceUID = "1.2.11111"
    image.SOPInstanceUID, image.ImagePositionPatient = "1.2.22222.333", [0, 0, 444]
    buffer = BytesIO()
    image.save_as(buffer)
    for number in range(series):
        folder = root / f"p{number}" / "CT"
        folder.mkdir(parents=True)
        own = buffer.getvalue().replace(b"1.2.11111", f"1.2.{10000 + number}".encode())
        for place in range(PER_SERIES):
            data = own.replace(b"1.2.22222.333", f"1.2.{10000 + number}.{100 + place}".encode())
            data = data.replace(b"\\0\\444", f"\\0\\{100 + place}".encode())
            (folder / f"{place}.dcm").write_bytes(data)
    return root


@pytest.mark.slow
def test_the_search_of_5000_files_is_quick_and_grows_linearly(tmp_path):
    few, many = export(tmp_path / "few", 10), export(tmp_path / "many", 50)
    list_inputs([few])  # imports, and what the disk has to wake up for

    def seconds(root: Path) -> float:
        start = process_time()
        inputs = list_inputs([root]).inputs
        names = case_names(inputs)
        taken = process_time() - start
        assert len(set(names.values())) == len(list(root.iterdir()))
        assert {len(found.files) for found in inputs} == {PER_SERIES}
        return taken

    small, large = min(seconds(few) for _ in range(2)), seconds(many)
    assert large < MOST_MS / 1000 * 5000
    assert large < 2 * 5 * small


def test_what_is_kept_of_a_file_is_small(tmp_path):
    root = export(tmp_path, 3)
    tracemalloc.start()
    listing = list_inputs([root])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(listing.inputs) == 3
    assert peak / 1024 < MOST_KB * 3 * PER_SERIES + 512
