import base64
import gzip
import json
import re
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from small_outputs import LIVER_AT, NOTICE, SPLEEN_AT, patient, save, small_output, write_output
from typer.testing import CliRunner

import cfseg.reports
from cfseg.cli.root import app
from cfseg.errors import InputError, UsageError
from cfseg.io import without_paths
from cfseg.reports.case_page import CaseView
from cfseg.reports.cohort_page import found_scores
from cfseg.reports.outputs import CaseOutput
from cfseg.reports.report import write_report

HOSTILE = '"><img src=x onerror=alert(1)>'


class Page(HTMLParser):
    """Elements of a page, and the text of each script and style."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[dict[str, str | None], str]] = []
        self.inside = ""
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside in ("script", "style"):
            self.texts.append((self.tags[-1][1], data))

    def block(self, name: str) -> str:
        return next(text for attributes, text in self.texts if attributes.get("id") == name)

    @property
    def policy(self) -> str:
        return next(str(a["content"]) for t, a in self.tags if t == "meta" and "http-equiv" in a)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The page of all cases and that of the one case."""
    folder = tmp_path_factory.mktemp("report")
    written = write_report(
        small_output(folder, notes=["region_grown: a note"]), folder / "reference"
    )
    assert written.exit_code == 0
    return Page(written.index), Page(written.pages["one"])


def test_pages_are_whole_files_that_ask_for_nothing(pages):
    for page in pages:
        for tag, attributes in page.tags:
            for name in ("src", "href", "data", "action", "poster", "srcset"):
                value = attributes.get(name) or ""
                assert not re.match(r"(?i)https?:|//", value), (tag, value[:80])
            assert tag not in ("link", "iframe", "object", "embed", "base")
            assert not any(name.startswith("on") or name == "style" for name in attributes)
        assert "default-src 'none'" in page.policy
        assert "unsafe" not in page.policy


def test_the_policy_names_the_hash_of_every_script_and_style(pages):
    page = pages[1]
    runs = [text for a, text in page.texts if a.get("type") in (None, "text/javascript")]
    assert len(runs) == 3
    for text in runs:
        digest = base64.b64encode(sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in page.policy
    assert page.policy.count("sha256-") == 3


def test_a_case_page_says_what_was_found(pages):
    text = pages[1].text
    words = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text.split("<body>")[1]))
    assert NOTICE in words
    assert "region_grown: a note" in words
    assert "Cut by the border of the scan: aorta." in words
    assert "The networks disagree on spleen." in words
    # 2112 voxels of liver less 36 of the lesion, 0.064 ml each.
    assert "liver 132.9" in words
    assert "aorta cut: feet, head &gt; 6.1" in words
    assert "in liver" in words
    # Half of 630 voxels less is missing: 2 * 360 / (360 + 630).
    assert "0.727" in words
    assert "coarse 1.50 s" in words
    assert "total 2.00 s" in words
    assert len(re.findall('<img src="data:image/jpeg', text)) == 3
    assert "Worst organ: spleen" in words
    assert "Largest lesion." in words


def test_the_viewer_gets_ct_and_labels_where_they_lie(pages):
    page = pages[1]
    settings = json.loads(page.block("settings"))
    _, ids = patient()
    reference = nib.Nifti1Image.from_bytes(
        gzip.decompress(base64.b64decode(page.block("data-reference")))
    )
    shown = np.asarray(reference.dataobj)
    assert nib.aff2axcodes(reference.affine) == ("R", "A", "S")
    assert np.array_equal(shown[::-1, ::-1], ids)
    for label, place in ((1, LIVER_AT), (3, SPLEEN_AT)):
        mm = np.diag([-4.0, -4.0, 4.0]) @ place
        index = np.linalg.inv(reference.affine) @ [*mm, 1]
        assert shown[tuple(np.rint(index[:3]).astype(int))] == label
        at = np.linalg.inv(reference.affine) @ [*settings["places"][str(label)], 1]
        assert shown[tuple(np.rint(at[:3]).astype(int))] == label


def test_names_and_notes_do_no_harm(tmp_path):
    hu, ids = patient()
    ct = save(tmp_path / "ct" / "x_0000.nii.gz", hu)
    out = tmp_path / "out"
    write_output(out, HOSTILE, ids, None, file=HOSTILE.replace("/", "_"), notes=[HOSTILE],
                 notice=HOSTILE, seconds={HOSTILE: 1.0, "total": 1.0})  # fmt: skip
    write_output(out, "x", ids, ct, notes=[HOSTILE, "</script><script>alert(2)</script>"])
    written = write_report(out, title=HOSTILE)
    for path in (written.index, *written.pages.values()):
        page = Page(path)
        assert not [a for tag, a in page.tags if tag == "img" and a.get("src") == "x"]
        assert not any("onerror" in attributes for _, attributes in page.tags)
        assert not any("alert(2)" in text for a, text in page.texts)
        assert re.fullmatch(r"[\w.-]+\.html", path.name)
    links = [a["href"] for tag, a in Page(written.index).tags if tag == "a"]
    assert len(links) == 2
    assert all((written.index.parent / str(link)).is_file() for link in links)


def test_no_path_and_no_patient_on_any_page(tmp_path):
    folder = tmp_path / "DOE^JOHN 1950-01-01"
    out = small_output(folder)
    hidden = f"{folder}/ct/bad.nii.gz: the file is cut short"
    write_output(out, "bad", patient()[1], None, state="refused", code="E_CORRUPT", message=hidden)
    (out / "bad.nii.gz").unlink()
    written = write_report(out, folder / "reference")
    for path in (written.index, *written.pages.values()):
        assert "DOE^JOHN" not in path.read_text(encoding="utf-8")
    assert "the file is cut short" in written.pages["bad"].read_text(encoding="utf-8")
    assert "E_CORRUPT" in written.index.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("/data/DOE/ct.nii.gz: the file is cut", "(file): the file is cut"),
        (r"C:\scans\DOE\ct.nii: cut", "(file): cut"),
        ("slices 3 to 5 are missing", "slices 3 to 5 are missing"),
        ("read 'a/DOE/x.dcm', it is cut", "read '(file)', it is cut"),
        ("/data/DOE JOHN PAUL/ct.nii.gz: cut", "(file): cut"),
    ],
)
def test_paths_are_left_out(text, said):
    assert without_paths(text) == said


def test_a_ct_that_is_gone_or_changed_is_said_and_images_finds_it(tmp_path):
    out = small_output(tmp_path)
    ct = tmp_path / "ct" / "one_0000.nii.gz"
    away = tmp_path / "away"
    away.mkdir()
    ct.rename(away / ct.name)
    written = write_report(out)
    assert written.exit_code == 3
    page = Page(written.pages["one"])
    assert "--images" in page.text
    assert not [a for tag, a in page.tags if tag == "img"]
    again = write_report(out, images=away)
    assert again.exit_code == 0
    hu, _ = patient()
    save(away / ct.name, hu + np.int16(1))
    assert "its content has changed" in Page(write_report(out, images=away).pages["one"]).text


def test_a_reference_on_another_grid_is_not_shown(tmp_path):
    out = small_output(tmp_path)
    save(tmp_path / "reference" / "one.nii.gz", patient()[1][1:])
    page = Page(write_report(out, tmp_path / "reference").pages["one"])
    assert "does not lie on the CT" in page.text
    assert not any(a.get("id") == "data-reference" for _, a in page.tags)


def test_the_cohort_lists_the_worst_first(tmp_path):
    out = small_output(tmp_path, "a")
    hu, ids = patient()
    for case, missing in (("b", 3), ("c", 1)):
        ct = save(tmp_path / "ct" / f"{case}_0000.nii.gz", hu)
        save(tmp_path / "reference" / f"{case}.nii.gz", ids)
        write_output(out, case, np.where(ids == missing, 0, ids).astype(np.uint8), ct)
    write_output(out, "d", ids, None, state="failed", code="E_OOM", message="out of memory")
    (out / "d.nii.gz").unlink()
    written = write_report(out, tmp_path / "reference")
    page = Page(written.index)
    links = [a["href"] for tag, a in page.tags if tag == "a"]
    # The failed one, then b and c, which miss a whole organ, then a, which misses a part of one.
    assert links == [f"cases/{name}.html" for name in "dbca"]
    assert page.text.count("data:image/png") == 4


def test_means_of_the_cohort_count_a_case_without_a_label_map(tmp_path):
    """One case is perfect, one has no label map; neither has a gallbladder, the first no tumor."""
    hu, ids = patient()
    without_tumor = np.where(ids == 14, 1, ids).astype(np.uint8)
    for case, truth in (("a", without_tumor), ("b", ids)):
        ct = save(tmp_path / "ct" / f"{case}_0000.nii.gz", hu)
        save(tmp_path / "reference" / f"{case}.nii.gz", truth)
        write_output(tmp_path / "out", case, truth, ct)
    (tmp_path / "out" / "b.nii.gz").unlink()
    write_output(tmp_path / "out", "c", ids, None)
    text = Page(write_report(tmp_path / "out", tmp_path / "reference").index).text
    for title in ("Organs, DSC (n = 2)", "Organs, NSD (n = 2)", "Tumor, DSC (1 absent, n = 2)"):
        assert f"<dt>{title}</dt><dd>0.500</dd>" in text


def test_dots_are_of_what_was_to_be_found(tmp_path):
    view = CaseView(
        CaseOutput(
            "a", "a.html", {}, absent=("tumor", "gallbladder"),
            scores={"dsc": {"liver": 1.0, "tumor": 1.0, "gallbladder": 0.0}},
        )
    )  # fmt: skip
    assert [found_scores([view], "dsc", name) for name in ("liver", "tumor", "gallbladder")] == [
        [1.0], [], [0.0],
    ]  # fmt: skip


def test_a_case_page_says_what_was_missed(tmp_path):
    out = small_output(tmp_path)
    ids = patient()[1]
    save(out / "one.nii.gz", np.where(ids == 14, 0, ids).astype(np.uint8))
    page = Page(write_report(out, tmp_path / "reference").pages["one"])
    assert "Missed, or all but missed (DSC under 0.1): tumor." in page.text


def test_a_status_file_that_is_no_object_costs_its_own_case(tmp_path):
    out = small_output(tmp_path)
    (out / "status" / "two.json").write_text("[]")
    written = write_report(out)
    assert sorted(written.pages) == ["one", "two"]
    assert "Its status file is damaged" in Page(written.pages["two"]).text


def test_a_case_whose_name_ends_like_a_channel_keeps_its_reference(tmp_path):
    page = Page(
        write_report(small_output(tmp_path, "x_0000"), tmp_path / "reference").pages["x_0000"]
    )
    assert any(a.get("id") == "data-reference" for _, a in page.tags)
    assert "0.727" in page.text


def test_an_empty_result_has_a_page(tmp_path):
    hu, ids = patient()
    ct = save(tmp_path / "ct" / "e_0000.nii.gz", hu)
    write_output(tmp_path / "out", "e", np.zeros_like(ids), ct, state="empty", agreement={})
    written = write_report(tmp_path / "out")
    assert "None." in Page(written.pages["e"]).text
    assert "data:image/jpeg" in Page(written.pages["e"]).text


def test_a_folder_that_predict_did_not_write_is_refused(tmp_path):
    with pytest.raises(InputError, match="predict"):
        write_report(tmp_path)
    with pytest.raises(UsageError, match="no folder"):
        write_report(tmp_path / "nowhere")


def test_command(tmp_path):
    out = small_output(tmp_path)
    call = ["report", str(out), "--reference", str(tmp_path / "reference"), "-q"]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0
    assert f"report: {out / 'report' / 'index.html'}" in result.output


def test_the_vendored_viewer_is_the_pinned_one_and_its_license_is_kept(pages):
    folder = Path(cfseg.reports.__file__).parent / "vendored" / "niivue"
    digest = sha256((folder / "niivue.umd.js").read_bytes()).hexdigest()
    assert digest in (folder / "README.md").read_text(encoding="utf-8")
    assert "Copyright (c) 2021, Niivue" in pages[1].text
