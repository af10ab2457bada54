"""Each refusal that names an option is read with that option, taken from its own message."""

import re
from pathlib import Path

import numpy as np
import pytest
from small_scans import SHAPE, ct
from test_nifti_refusals import (
    PIXDIM,
    UNITS,
    patched,
    plain,
    sheared,
    spaced,
    with_nan,
)
from test_reading_options import LOST, NO_FORM, TWO

from cfseg.errors import InputError
from cfseg.io import ReadingOptions, read_scan

NRRD = "NRRD0004\ntype: short\ndimension: 3\nsizes: 24 20 16\nendian: little\nencoding: raw\n{}\n\n"
BODY = ct().tobytes(order="F")
ORIENTED = "space: LPS\nspace directions: (2,0,0) (0,2,0) (0,0,3)"

HINTED = {
    "N02": (plain(affine=sheared(0.1)), "--strict-geometry"),
    "N04": (plain(affine=spaced(2, 2, 25)), "--force-spacing"),
    "N04-fine": (plain(affine=spaced(0.05, 2, 3)), "--force-spacing"),
    "N04-meter": (patched(plain(), (UNITS, "B", 1)), "--force-spacing"),
    "N04-nrrd": (NRRD.format(f'{ORIENTED}\nspace units: "cm" "cm" "cm"'), "--force-spacing"),
    "N05": (NO_FORM, "--assume-orientation"),
    "N05-nrrd": (NRRD.format("spacings: 2 2 3"), "--assume-orientation"),
    "N09": (TWO, "--volume-index"),
    "N15": (plain(with_nan()), "--nonfinite"),
    "N17": (LOST, "--hu-offset"),
}


def options_of(message: str) -> tuple[str, ReadingOptions]:
    """Read the hint as a person would, and give the options back."""
    flag, value = re.search(r"(--[a-z-]+)(?: ([\w.-]+))?", message).groups()
    name = flag[2:].replace("-", "_")
    if flag == "--strict-geometry":
        assert "leave out" in message
        return flag, ReadingOptions()
    kinds = {"force_spacing": lambda _: True, "hu_offset": float}
    kinds["volume_index"] = lambda text: int(text.split("..")[0])
    return flag, ReadingOptions(**{name: kinds.get(name, str)(value)})


@pytest.mark.parametrize("row", HINTED)
def test_a_hint_works(tmp_path: Path, row: str):
    content, expected = HINTED[row]
    path = tmp_path / ("x.nrrd" if row.endswith("nrrd") else "x.nii")
    if row.endswith("nrrd"):
        pytest.importorskip("SimpleITK")
        content = content.encode() + BODY
    path.write_bytes(content)
    strict = ReadingOptions(strict_geometry=expected == "--strict-geometry")
    with pytest.raises(InputError) as caught:
        read_scan(path, options=strict)
    flag, options = options_of(caught.value.message)
    assert flag == expected
    scan = read_scan(path, options=options)
    assert scan.source.shape == SHAPE
    assert scan.notes


def test_no_hint_is_left_out():
    """An option that a message of these modules names has a row above."""
    import cfseg.io

    folder = Path(cfseg.io.__file__).parent
    modules = [
        path
        for path in folder.glob("*.py")
        if not path.name.startswith(("dicom", "gaps", "listing"))
    ]
    raised = re.compile(r"(?:InputError|advice|no_orientation)\((?:[^()]|\([^()]*\))*\)")
    text = "".join(path.read_text() for path in modules)
    named = {flag for call in raised.findall(text) for flag in re.findall(r"--[a-z][a-z-]+", call)}
    assert {"--assume-orientation", "--hu-offset"} <= named
    assert named <= {flag for _, flag in HINTED.values()}


def refused_early(tmp_path: Path) -> dict[str, bytes]:
    huge = ((40 + 2 * i, "h", 1100) for i in (1, 2, 3))
    grown = patched(plain(), *huge)
    return {
        "E_SPACING": patched(grown, (PIXDIM + 12, "f", 30.0), (312 + 8, "f", 30.0)),
        "E_ORIENTATION": patched(grown, (252, "h", 0), (254, "h", 0)),
        "E_GEOMETRY": patched(grown, (PIXDIM + 4, "f", 0.0)),
        "E_DTYPE": patched(grown, (70, "h", 999)),
        "E_CORRUPT": patched(grown, (116, "f", np.nan)),
        "E_TOO_FEW_SLICES": patched(grown, (40 + 6, "h", 1)),
    }


@pytest.mark.parametrize(
    "code",
    ["E_SPACING", "E_ORIENTATION", "E_GEOMETRY", "E_DTYPE", "E_CORRUPT", "E_TOO_FEW_SLICES"],
)
def test_what_the_header_refuses_is_not_read(tmp_path: Path, monkeypatch, code: str):
    """A file of 36 GB, all holes, costs its first bytes alone."""
    from cfseg.io import nifti

    path = tmp_path / "huge.nii"
    path.write_bytes(refused_early(tmp_path)[code][:352])
    with path.open("r+b") as file:
        file.truncate(36 * 10**9)
    monkeypatch.setattr(nifti, "_read_data", None)
    with pytest.raises(InputError) as caught:
        read_scan(path)
    assert caught.value.code == code
