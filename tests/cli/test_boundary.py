"""What judging commands say of folders with nothing in them: one sentence, no traceback."""

import os
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cfseg.cli import main

IDS = np.zeros((8, 8, 6), dtype=np.uint8)
IDS[2:6, 2:6, 1:5] = 1


def save(path, values=IDS):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, np.diag([-2.0, -2.0, 3.0, 1.0])), path)


@pytest.fixture
def place(tmp_path):
    """A CT, a label map, a folder with nothing, one with a foreign file, and a file."""
    hu = np.full((8, 8, 6), -1000, dtype=np.int16)
    hu[1:7, 1:7] = 40
    save(tmp_path / "ct" / "a.nii.gz", hu)
    save(tmp_path / "good" / "a.nii.gz")
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "a.txt").write_text("notes")
    (tmp_path / "file.txt").write_text("notes")
    return tmp_path


COMMANDS = {
    "evaluate": "evaluate {it} good -o out",
    "evaluate, references": "evaluate good {it} -o out",
    "compare": "compare {it} good good -o out",
    "compare, second": "compare good {it} good -o out",
    "findings": "findings {it} good -o out",
    "findings, label maps": "findings ct {it} -o out",
    "benchmark": "benchmark {it} -o out --no-own --command x=true{{input}}{{output}}",
    "figure": "figure {it} good --masks m=good -o out",
    "figure, references": "figure ct {it} --masks m=good -o out",
    "figure, masks": "figure ct good --masks m={it} -o out",
    "report": "report {it}",
}
ENDS = {"nowhere": 2, "empty": 4, "foreign": 4, "file.txt": 4}
OTHERWISE = {("report", "file.txt"): 2}
"""A report is made of a folder alone; the others take a file, and find nothing in this one."""


def run(line, monkeypatch, capfd):
    monkeypatch.setattr("sys.argv", ["cfseg", *line.split()])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code, capfd.readouterr().err


@pytest.mark.parametrize("what", ENDS)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_without_anything_to_judge(command, what, place, monkeypatch, capfd):
    monkeypatch.chdir(place)
    code, said = run(COMMANDS[command].format(it=what), monkeypatch, capfd)
    assert code == OTHERWISE.get((command, what), ENDS[what]), said
    assert "Traceback" not in said
    assert re.search(r"\bE_[A-Z_]+: ", said)
    assert what in said or "benchmark" in command


def spoiled(folder):
    """Put entries into a folder that cannot be read, and one with a name that is no UTF-8."""
    (folder / "dangling.nii.gz").symlink_to("nowhere")
    (folder / "itself.nii.gz").symlink_to("itself.nii.gz")
    (folder / "folder.nii.gz").mkdir()
    (folder / "torn.nii.gz").write_bytes((folder / "a.nii.gz").read_bytes()[:50])
    (folder / "notes.txt").write_text("notes")
    name = os.fsencode(folder) + b"/caf\xe9.nii.gz"
    with Path(os.fsdecode(name)).open("wb") as file:
        file.write((folder / "a.nii.gz").read_bytes())


def test_one_bad_entry_does_not_cost_the_others(place, monkeypatch, capfd):
    monkeypatch.chdir(place)
    spoiled(place / "good")
    code, said = run("evaluate good good -o out --jobs 1", monkeypatch, capfd)
    assert code == 3, said
    rows = (place / "out" / "scores.csv").read_text(encoding="utf-8")
    assert "a,scored,liver,1.0" in rows
    assert r"caf\udce9,scored,liver,1.0" in rows
    assert "2 scored, 3 failed" in said
    for name in ("dangling", "itself", "torn"):
        assert f"{name}: failed: E_" in said


def test_a_bad_entry_beside_ct_and_masks(place, monkeypatch, capfd):
    for folder in ("ct", "good"):
        spoiled(place / folder)
    monkeypatch.chdir(place)
    for line in ("findings ct good -o out", "figure ct good --masks m=good -o out"):
        code, said = run(line, monkeypatch, capfd)
        assert code == 3, said
        assert "torn: refused: E_" in said
        assert "Traceback" not in said
    assert (place / "out" / "statistics" / "a.json").is_file()
    assert (place / "out" / "good-and-bad.png").is_file()


def test_a_folder_that_may_not_be_listed(place, monkeypatch, capfd):
    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.chdir(place)
    monkeypatch.setattr("pathlib.Path.iterdir", refuse)
    code, said = run("evaluate good good -o out", monkeypatch, capfd)
    assert code == 2
    assert "good cannot be listed: Permission denied" in said
