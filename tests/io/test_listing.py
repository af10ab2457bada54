"""Exports as they come: each scan is found or refused, and the rest is counted with its reason."""

import os
import shutil
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from small_scans import ct, image, labels
from test_nifti_refusals import SLOPE, patched, plain

from cfseg.errors import InputError, UsageError
from cfseg.io import AS_IS, ReadingOptions, case_names, list_inputs, read_scan

pytest.importorskip("pydicom")
pytest.importorskip("highdicom")
import small_series
from small_series import ALL, SLICES, enhanced, hu_stack, put, save, save_one
from small_series import series as dicom_series

EACH = ReadingOptions(all_series=True)
SR = {
    "Modality": "SR", "Rows": None, "StudyInstanceUID": "1.5",
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.67",
}  # fmt: skip
"""A dose report."""


def scan(path: Path, values: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image(values), path)
    return path


def series(folder: Path, uid: str, study: str = "1.5", **values: object) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    edit = put(ALL, SeriesInstanceUID=uid, StudyInstanceUID=study, **values)
    return save(folder, edit, name=f"{uid}-{{}}.dcm")


def cases(*paths: Path, options: ReadingOptions = AS_IS) -> dict[str, str]:
    """Case to the code of its refusal, of all inputs."""
    named = case_names(list_inputs(paths, options).inputs)
    return {case: found.refusal.code if found.refusal else "" for found, case in named.items()}


def test_scans_of_every_kind_at_any_depth(tmp_path):
    scan(tmp_path / "a.nii.gz")
    scan(tmp_path / "one" / "two" / "b_0000.nii")
    series(tmp_path / "patient" / "study" / "portal", "1.1")
    (tmp_path / "patient" / "DICOMDIR").write_bytes(b"broken")
    (tmp_path / "patient" / "notes.txt").write_text("words")
    listing = list_inputs([tmp_path])
    assert list(cases(tmp_path)) == ["a", "b", "portal"]
    assert listing.reasons == {"DICOMDIR": 1, "other file": 1}
    np.testing.assert_array_equal(read_scan(listing.inputs[2]).volume.hu, hu_stack())


@pytest.mark.parametrize("make", [lambda p: None, lambda p: (p / "a.txt").write_text("words")])
def test_a_folder_without_a_scan_is_refused_and_costs_no_other(tmp_path, make):
    (tmp_path / "none").mkdir()
    make(tmp_path / "none")
    assert cases(tmp_path / "none") == {"none": "E_FORMAT"}
    good = scan(tmp_path / "a.nii.gz")
    assert cases(tmp_path / "none", good) == {"none": "E_FORMAT", "a": ""}
    with pytest.raises(InputError, match="holds no CT"):
        read_scan(tmp_path / "none")


def test_an_input_that_was_named_never_vanishes(tmp_path):
    series(tmp_path / "nested" / "a" / "s", "1.1")
    assert cases(tmp_path / "nested", scan(tmp_path / "ct_0000.nii.gz")) == {"s": "", "ct": ""}
    assert cases(tmp_path / "nested", tmp_path / "nested" / "a" / "s") == {"s": ""}


def test_none_of_the_inputs_exists(tmp_path):
    with pytest.raises(UsageError, match=r"gone\.nii.*lost\.nii"):
        list_inputs([tmp_path / "gone.nii", tmp_path / "lost.nii"])
    assert len(list_inputs([tmp_path / "gone.nii", scan(tmp_path / "a.nii")]).inputs) == 2


def test_one_entry_of_a_listing_never_costs_the_others(tmp_path, monkeypatch):
    scan(tmp_path / "good.nii.gz")
    (tmp_path / "self.nii.gz").symlink_to(tmp_path / "self.nii.gz")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "up").symlink_to(tmp_path)
    (tmp_path / "gone.nii").symlink_to(tmp_path / "missing")
    os.mkfifo(tmp_path / "pipe")
    raw = os.path.join(os.fsencode(tmp_path), b"caf\xe9.nii.gz")  # noqa: PTH118 - bytes
    shutil.copy(tmp_path / "good.nii.gz", raw)
    scan(tmp_path / f"{'n' * 233}.nii.gz")
    locked = tmp_path / "locked"
    locked.mkdir()
    scandir = os.scandir

    def refuses(folder):
        if Path(folder) == locked:
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuses)
    listing = list_inputs([tmp_path])
    named = case_names(listing.inputs)
    read = {}
    for found in listing.inputs:
        try:
            read[named[found][:5]] = read_scan(found).case[:5]
        except InputError as error:
            read[named[found][:5]] = error.code
    assert read == {
        "caf_": "caf_", "good": "good", "nnnnn": "nnnnn", "locke": "E_READ",
        "self": "E_READ", "gone": "E_FORMAT",
    }  # fmt: skip
    assert listing.reasons == {
        "link that leads nowhere": 1, "no regular file": 1, "link to a folder seen already": 1,
    }  # fmt: skip


def test_label_maps_below_the_first_level_are_no_scans(tmp_path):
    for case in ("s0001", "s0002", "s0003"):
        scan(tmp_path / case / "ct.nii.gz")
        scan(tmp_path / case / "segmentations" / "liver.nii.gz", (ct() > 0).astype(np.uint8))
        scan(tmp_path / case / "segmentations" / "all.nii.gz", labels().astype(np.int16))
        scan(tmp_path / case / "segmentations" / "float.nii", labels().astype(np.float32))
    assert list(cases(tmp_path)) == ["s0001__ct", "s0002__ct", "s0003__ct"]
    assert list_inputs([tmp_path]).reasons == {"label map": 9}
    assert list(cases(tmp_path / "s0001" / "segmentations")) == ["all", "float", "liver"]


@pytest.mark.parametrize(
    ("value", "slope"), [("nan", 1), ("-inf", 1), ("3e38", 1e30), ("3e38", -1e30), ("nan", 2)]
)
def test_numbers_that_are_none_make_no_label_map(tmp_path, value, slope):
    data = labels().astype(np.float32)
    data[3, 3, 3] = float(value)
    path = tmp_path / "case" / "x.nii"
    path.parent.mkdir()
    path.write_bytes(patched(plain(data), (SLOPE, "f", slope)))
    assert [found.name for found in list_inputs([tmp_path]).inputs] == ["x.nii"]


def test_a_raw_data_set_of_nnunet_gives_its_images(tmp_path):
    for folder, case in (("imagesTr", "a_0000"), ("imagesTs", "b_0000")):
        scan(tmp_path / folder / f"{case}.nii.gz")
    scan(tmp_path / "labelsTr" / "a.nii.gz", labels())
    (tmp_path / "dataset.json").write_text("{}")
    assert list(cases(tmp_path)) == ["a", "b"]


def test_results_and_the_output_folder_are_not_looked_at(tmp_path):
    scan(tmp_path / "a.nii.gz")
    scan(tmp_path / "out" / "a.nii.gz")
    scan(tmp_path / "old" / "a.nii.gz")
    (tmp_path / "old" / ".inputs").mkdir()
    listing = list_inputs([tmp_path], skip=tmp_path / "out")
    assert [found.name for found in listing.inputs] == ["a.nii.gz"]
    assert listing.reasons == {"results of cfseg": 1, "the output folder": 1}


def test_a_folder_called_status_hides_no_scan(tmp_path):
    scan(tmp_path / "patient" / "a.nii.gz")
    (tmp_path / "patient" / "status").mkdir()
    assert cases(tmp_path) == {"a": ""}


def test_a_named_file_of_several_frames_never_vanishes(tmp_path):
    segmentation = enhanced(small_series.series())
    segmentation.Modality = "SEG"
    segmentation.SOPClassUID = "1.2.840.10008.5.1.4.1.1.66.4"
    path = save_one(tmp_path / "seg.dcm", segmentation)
    assert [found.path for found in list_inputs([path]).inputs] == [path]
    with pytest.raises(InputError):
        read_scan(path)


def test_series_of_different_studies_are_different_cases_wherever_they_lie(tmp_path):
    series(tmp_path / "mixed", "1.1", "1.5", SeriesNumber="2")
    series(tmp_path / "mixed", "1.2", "1.6", SeriesNumber="4")
    series(tmp_path / "p2" / "mixed", "1.3", "1.7")
    assert cases(tmp_path) == {"mixed_series2": "", "mixed_series4": "", "mixed": ""}


def test_a_series_split_over_folders_is_put_together(tmp_path):
    for half, numbers in (("a", range(6)), ("b", range(6, SLICES))):
        (tmp_path / "split").mkdir(exist_ok=True)
        save(tmp_path / "split" / half, numbers=numbers)
    (found,) = list_inputs([tmp_path]).inputs
    assert found.path == tmp_path / "split"
    np.testing.assert_array_equal(read_scan(found).volume.hu, hu_stack())


@pytest.fixture
def study(tmp_path):
    """Two CT series of a study in two folders, and what lies beside them in an export."""
    root = tmp_path / "export"
    series(
        root / "native", "1.1", SeriesNumber="2", SeriesDescription="NATIVE 3.0", SliceThickness="3"
    )
    series(root / "portal", "1.2", SeriesNumber="3", SeriesDescription="Abd PORTAL VENOUS",
           ConvolutionKernel="Br40")  # fmt: skip
    series(root / "scout", "1.3", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    series(root / "mr", "1.4", Modality="MR")
    save(root / "dose", put({0}, SeriesInstanceUID="1.6", StudyInstanceUID="1.5"), numbers=[0])
    save(root / "sr", put({0}, **SR), numbers=[0])
    return root


def test_a_study_with_several_series_is_refused_with_a_table(study):
    assert cases(study) == {"export": "E_MULTI_SERIES"}
    with pytest.raises(InputError) as caught:
        read_scan(study)
    assert "--series" in caught.value.message
    assert "--all-series" in caught.value.message
    assert [row.split(" | ") for row in caught.value.details] == [
        ["series", "description", "kernel", "slices", "spacing", "extent"],
        ["2", "NATIVE 3.0", "-", "12", "2.5 mm", "28 mm"],
        ["3", "Abd PORTAL VENOUS", "Br40", "12", "2.5 mm", "28 mm"],
    ]
    assert list_inputs([study]).reasons == {
        "modality MR": 12, "localizer": 12, "single image": 1, "DICOM SR without an image": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (EACH, {"native": "", "portal": ""}),
        (ReadingOptions(series="3"), {"portal": ""}),
        (ReadingOptions(series="description~portal"), {"portal": ""}),
        (ReadingOptions(series="kernel~BR"), {"portal": ""}),
        (ReadingOptions(series="uid~1.1"), {"native": ""}),
        (ReadingOptions(series="9"), {"export": "E_MULTI_SERIES"}),
        (ReadingOptions(series="description~0"), {"native": ""}),
        (ReadingOptions(series="uid~1."), {"export": "E_MULTI_SERIES"}),
    ],
)
def test_the_hints_of_that_refusal_work(study, options, found):
    assert cases(study, options=options) == found


def test_a_folder_that_is_named_is_its_own_decision(study):
    assert cases(study / "portal") == {"portal": ""}
    assert cases(study / "portal", study / "native") == {"portal": "", "native": ""}
    assert cases(study / "native", options=ReadingOptions(series="3")) == {
        "native": "E_MULTI_SERIES"
    }


def test_series_of_one_folder_are_told_apart(tmp_path):
    series(tmp_path / "s", "1.2", SeriesNumber="7")
    series(tmp_path / "s", "1.1", SeriesNumber="12")
    assert list(cases(tmp_path / "s", options=EACH)) == ["s_series7", "s_series12"]
    twice = tmp_path / "t"
    for uid in ("1.2", "1.1"):
        series(twice, uid, SeriesNumber="7")
    assert list(cases(twice, options=EACH)) == ["t_volume1", "t_volume2"]


@pytest.mark.parametrize("wrong", ["phase~x", "description~", "~x"])
def test_a_wrong_choice_of_series_is_an_error_of_usage(wrong):
    with pytest.raises(UsageError, match="--series"):
        ReadingOptions(series=wrong)
    with pytest.raises(UsageError, match="exclude"):
        ReadingOptions(series="3", all_series=True)


def test_n26_images_that_are_no_ct_are_refused_unless_forced(tmp_path):
    series(tmp_path / "mr", "1.1", Modality="MR")
    assert cases(tmp_path) == {"mr": "E_MODALITY"}
    forced = ReadingOptions(force_modality=True)
    assert cases(tmp_path, options=forced) == {"mr": ""}
    assert read_scan(tmp_path, options=forced).notes[0].startswith("modality_forced")


def test_localizers_alone_are_no_ct(tmp_path):
    series(tmp_path / "s", "1.1", ImageType=["DERIVED", "PRIMARY", "LOCALIZER"])
    with pytest.raises(InputError, match=r"no CT \(12 x localizer"):
        read_scan(tmp_path / "s")


@pytest.mark.parametrize("content", [b"", b"no DICOM" * 99, bytes(128) + b"DICM" + b"x" * 9])
def test_d13_a_file_that_should_be_one_of_the_series_is_never_no_image(tmp_path, content):
    folder = save(tmp_path / "s", numbers=range(SLICES - 1))
    (folder / "IM77").write_bytes(content)
    with pytest.raises(InputError, match="IM77 is damaged") as caught:
        read_scan(folder)
    assert caught.value.code == "E_CORRUPT"
    assert cases(tmp_path) == {"s": "E_CORRUPT"}


def test_damage_costs_the_series_that_it_is_named_like(tmp_path):
    series(tmp_path / "s", "1.1", "1.5")
    save(tmp_path / "s", put(ALL, SeriesInstanceUID="1.2", StudyInstanceUID="1.6"))
    (tmp_path / "s" / "IM999").touch()
    found = {it.series: it.refusal and it.refusal.code for it in list_inputs([tmp_path]).inputs}
    assert found == {"1.1": None, "1.2": "E_CORRUPT"}


def test_a_folder_of_damaged_files_alone_is_refused(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "IM1").write_bytes(bytes(128) + b"DICM" + b"x" * 9)
    assert cases(tmp_path) == {"s": "E_CORRUPT"}


def test_dicom_files_that_are_named_count_together(tmp_path):
    folder = save(tmp_path / "s")
    files = sorted(folder.iterdir())
    assert cases(*files) == {"s": ""}
    np.testing.assert_array_equal(read_scan(list_inputs(files).inputs[0]).volume.hu, hu_stack())
    alone = list_inputs(files[:1]).inputs
    with pytest.raises(InputError, match="a single DICOM"):
        read_scan(alone[0])


def test_enhanced_files_that_are_named_are_parts_of_one_volume_or_scans_of_their_own(tmp_path):
    halves = [list(range(6)), list(range(6, SLICES))]
    files = [
        save_one(tmp_path / f"{k}.dcm", enhanced(dicom_series(numbers=half)))
        for k, half in enumerate(halves)
    ]
    (whole,) = list_inputs(files).inputs
    np.testing.assert_array_equal(read_scan(whole).volume.hu, hu_stack())
    (half,) = list_inputs(files[:1]).inputs
    assert half.path == files[0]
    assert case_names([half])[half] == "0.dcm"
    assert half.identity != whole.identity


def test_the_same_scan_by_another_path_is_one_input(tmp_path):
    path = scan(tmp_path / "in" / "a.nii.gz")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    listing = list_inputs([path, tmp_path / "in" / ".." / "in" / "a.nii.gz", tmp_path / "link"])
    assert [found.path for found in listing.inputs] == [path]
    assert listing.reasons == {"the same scan by another path": 1}


def test_files_of_two_patients_are_never_one_scan(tmp_path):
    for patient, numbers in (("A", range(6)), ("B", range(6, SLICES))):
        save(tmp_path / patient, put(ALL, PatientID=patient), numbers=numbers)
    (found,) = list_inputs([tmp_path]).inputs
    assert found.refusal.code == "E_MULTI_SERIES"
    assert "2 different patients" in found.refusal.message
    assert cases(tmp_path / "A") == {"A": ""}


def test_what_is_nifti_is_a_scan_whatever_it_is_called(tmp_path):
    data = scan(tmp_path / "a.nii.gz").read_bytes()
    for name in ("b.gz", "c.nii (1).gz", "d"):
        (tmp_path / name).write_bytes(data)
    for name in ("e.nii.bz2", "f.hdr", "g.mgz"):
        (tmp_path / name).write_bytes(b"other bytes" * 50)
    os.mkfifo(tmp_path / "h.zip")
    listing = list_inputs([tmp_path])
    assert [found.name for found in listing.inputs] == ["a.nii.gz", "b.gz", "c.nii (1).gz", "d"]
    assert set(listing.reasons) == {
        "compressed in a way that is not unpacked",
        "Analyze or a NIfTI pair: convert it to .nii.gz",
        "image of a format that is not read", "no regular file",
    }  # fmt: skip


def test_a_missing_extra_costs_the_dicom_series_alone(tmp_path, monkeypatch):
    scan(tmp_path / "a.nii.gz")
    series(tmp_path / "s", "1.1")
    for name in [it for it in sys.modules if it.startswith("cfseg.io.dicom")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert cases(tmp_path) == {"a": "", "s": "E_EXTRA"}
    one = next((tmp_path / "s").iterdir())
    assert cases(one, tmp_path / "a.nii.gz") == {one.name: "E_EXTRA", "a": ""}


def test_the_search_tells_how_far_it_is(tmp_path):
    save(tmp_path / "s")
    told: list[int] = []
    list_inputs([tmp_path], on_look=told.append)
    assert told == list(range(1, SLICES + 1))
