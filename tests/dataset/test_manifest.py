import json

import pytest
from small_cohorts import touch

from cfseg.dataset.cases import Case, read_cases
from cfseg.dataset.layouts import list_cohort
from cfseg.dataset.manifest import write_manifest
from cfseg.errors import UsageError


def manifest(folder, **cases):
    path = folder / "manifest.json"
    path.write_text(json.dumps(cases))
    return path


def entry(path, name="a"):
    return next(e for e in list_cohort(path).entries if e.name == name)


def test_both_forms_may_mix(tmp_path):
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "more/x.nii", "more/y.nii")
    long = {"image": "more/x.nii", "label": "more/y.nii", "annotated": [3], "absent": [9]}
    long |= {"label_map": {"5": 3, "6": 0}}
    manifest(tmp_path, a=[1, 2], b=long)
    a, b = read_cases(tmp_path)
    assert a.annotated == {1, 2}
    assert (b.image, b.label) == (tmp_path / "more/x.nii", tmp_path / "more/y.nii")
    assert (b.annotated, b.absent, b.label_map) == ({3, 9}, {9}, {5: 3, 6: 0})


def test_the_long_form_finds_the_folder_s_files(tmp_path):
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    manifest(tmp_path, a={"annotated": [1]})
    assert entry(tmp_path).label == tmp_path / "labelsTr/a.nii.gz"
    manifest(tmp_path, a={"label": None})
    assert entry(tmp_path).label is None


def test_a_scan_without_tumor_needs_no_label_map(tmp_path):
    touch(tmp_path, "imagesTr/a_0000.nii.gz")
    manifest(tmp_path, a={"absent": [14]})
    (case,) = read_cases(tmp_path)
    assert (case.annotated, case.is_tumor_free, case.has_tumor) == (frozenset(), True, False)


def test_a_label_map_beside_the_cases_holds_for_those_without_one(tmp_path):
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    touch(tmp_path, "imagesTr/b_0000.nii.gz", "labelsTr/b.nii.gz")
    # It also takes the place of names that cfseg does not know.
    about = {"file_ending": ".nii.gz", "labels": {"background": 0, "bladder": 1}}
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    manifest(tmp_path, label_map={"1": 4}, a=[4], b={"label_map": {"1": 2}})
    assert entry(tmp_path).label_map == {1: 4}
    assert entry(tmp_path, "b").label_map == {1: 2}


def test_a_manifest_by_itself_says_which_cases_there_are(tmp_path):
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "imagesTr/b_0000.nii.gz")
    path = manifest(tmp_path, a={"image": "imagesTr/a_0000.nii.gz"})
    assert [e.name for e in list_cohort(path).entries] == ["a"]
    assert entry(tmp_path, "b").code == "E_MANIFEST"


def test_a_case_without_a_scan_is_a_problem(tmp_path):
    manifest(tmp_path, a=[])
    assert entry(tmp_path).code == "E_MISSING"
    with pytest.raises(UsageError, match="no scan of it"):
        read_cases(tmp_path)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"annotated": [15]}, "ids other than 1..14"),
        ({"absent": [15]}, "absent ids other than"),
        ({"label_map": {"1": 15}}, "ids other than 0..14"),
        ({"label_map": {"0": 1}}, "background"),
        ({"label_map": {"300": 1}}, "keys are not 0..255"),
        ({"anotated": [1]}, "anotated"),
        ("liver", "annotated"),
        ({"label": None, "absent": [9]}, "no file in labelsTr"),
        ({"ignore": 3}, "also a label"),
        ({"ignore": 256}, "from 1 to 255"),
        ({"ignore": 5, "label_map": {"5": 1}}, "also a label"),
    ],
)
def test_what_is_wrong_with_a_case_is_its_problem_alone(tmp_path, said, message):
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "imagesTr/b_0000.nii.gz")
    manifest(tmp_path, a=said, b=[])
    assert message in entry(tmp_path).problem
    assert not entry(tmp_path, "b").problem


@pytest.mark.parametrize("name", ["../a", ".a", "a/b", "a:b"])
def test_a_case_is_called_as_a_file_can_be(tmp_path, name):
    path = manifest(tmp_path, **{name: {"image": "x.nii"}})
    assert "name of a file" in entry(path, name).problem


@pytest.mark.parametrize("text", ["{", "[]", '{"label_map": 3}', '{"label_map": {"1": 99}}'])
def test_what_is_no_manifest_is_refused(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UsageError):
        list_cohort(tmp_path)


def test_what_is_written_is_read_back(tmp_path):
    touch(tmp_path, "data/a.nii.gz", "data/b.nii.gz")
    root = tmp_path.resolve()
    cases = (
        Case("a", root / "data/a.nii.gz", None, frozenset()),
        Case("b", root / "data/a.nii.gz", root / "data/b.nii.gz", frozenset({1, 9}),
             frozenset({9}), {2: 1}),
    )  # fmt: skip
    path = tmp_path / "out" / "manifest.json"
    write_manifest(path, cases)
    assert "../data/a.nii.gz" in path.read_text()
    read = read_cases(path)
    assert [c.image.resolve() for c in read] == [c.image for c in cases]
    assert [(c.name, c.annotated, c.absent, c.label_map) for c in read] == [
        (c.name, c.annotated, c.absent, c.label_map) for c in cases
    ]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('{"a": [], "b": [1], "a": [2]}', "a"),
        ('{"a": {"annotated": [1], "annotated": [2]}}', "annotated"),
        ('{"label_map": {"1": 1, "1": 2}}', "1"),
    ],
)
def test_a_key_twice_is_named(tmp_path, text, key):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UsageError, match=f'names "{key}" twice'):
        list_cohort(tmp_path)


def test_a_mark_in_front_as_windows_puts_it_does_not_matter(tmp_path):
    touch(tmp_path, "imagesTr/a_0000.nii.gz")
    (tmp_path / "manifest.json").write_text('{"a": []}', encoding="utf-8-sig")
    assert [case.name for case in read_cases(tmp_path)] == ["a"]


def test_what_is_nested_too_deep_is_no_manifest(tmp_path):
    (tmp_path / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(UsageError, match="cannot be read as JSON"):
        list_cohort(tmp_path)


def test_ignore_is_of_one_case_or_of_all_and_is_written_back(tmp_path):
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    touch(tmp_path, "imagesTr/b_0000.nii.gz", "labelsTr/b.nii.gz")
    manifest(tmp_path, ignore=255, a=[1], b={"annotated": [1], "ignore": 99})
    cases = read_cases(tmp_path)
    assert [case.ignore for case in cases] == [255, 99]
    write_manifest(tmp_path / "out/manifest.json", cases)
    assert [case.ignore for case in read_cases(tmp_path / "out/manifest.json")] == [255, 99]


def test_a_case_may_be_called_ignore(tmp_path):
    touch(tmp_path, "imagesTr/ignore_0000.nii.gz")
    manifest(tmp_path, ignore=[])
    assert [(case.name, case.ignore) for case in read_cases(tmp_path)] == [("ignore", None)]
