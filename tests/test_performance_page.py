"""The page of ``make bench``, from numbers worked out by hand; nothing is measured here."""

import json
from argparse import Namespace

import pytest
from benchmarks import __main__ as main
from benchmarks import augmentation, page, tasks
from benchmarks.accuracy import VARIANTS
from benchmarks.cases import PAPER_SIZES, middle
from benchmarks.plot import draw_cascade

from cfseg.geometry import Box
from cfseg.phantoms.cohort import write_cohort
from cfseg.recipes.recipe import Cascade, with_overrides

NAMES = ("coarse", "tumor_1", "tumor_2", "organ")


def a_cascade(slices: int = 55, **more) -> dict:
    return {
        "slices": slices, "spacing_mm": 5.0, "region": [30, 200, 250], "rest": 4.0,
        "windows": dict.fromkeys(NAMES, 10), "each": {name: [9.0, 2.0] for name in NAMES},
        "peak_mb": 3000.0, "max_memory": None, "most": 2, "labels_sha256": "a" * 64,
        "memory": {"planned_mb": 2900, "used_mb": 2800, "given_up": []},
    } | more  # fmt: skip


def test_seconds_of_a_cascade_are_windows_times_the_last_one() -> None:
    assert page.network_seconds(a_cascade()) == 4 * 10 * 2.0
    row = "| 55 | 5 | 30x200x250 | 10 + 10 + 10 + 10 | 80 | 4 | 84 | 3000 |"
    text = page.text({"cascade": [a_cascade()]}, "performance-cascade.png")
    assert row in text
    assert "](performance-cascade.png)" in text


def test_labels_stand_beside_those_of_nnunet() -> None:
    found = {"voxels": 1000, "same": {"coarse": {"fp32": 1.0, "stock": 0.99912}}}
    text = page.text({"labels": found}, "x.png")
    assert "| coarse | 100.0000 | 99.9120 |" in text


def test_the_picture_is_a_png(tmp_path) -> None:
    path = tmp_path / page.plot_name(tmp_path / "performance.md")
    assert path.name == "performance-cascade.png"
    draw_cascade([a_cascade(100), a_cascade(55)], path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_memory_says_what_was_refused_and_whether_labels_are_the_same() -> None:
    small = {"region": [9, 9, 9], "most": None}
    refused = {
        "refused": "E_TOO_LARGE: needs about 2600 MB", "region": [30, 200, 250], "most": 2,
        "max_memory": "2GB", "peak_mb": 900.0,
    }  # fmt: skip
    found = [
        a_cascade(max_memory="8GB"), a_cascade(max_memory="4GB"), refused,
        a_cascade(max_memory="8GB", **small, labels_sha256="b" * 64),
    ]  # fmt: skip
    text = page.text({"memory": found}, "x.png")
    assert "Label maps of one region are the same." in text
    assert "- `--max-memory 2GB`: E_TOO_LARGE: needs about 2600 MB" in text
    assert "| 30x200x250 | 2 of each network | 2GB | refused |" in text
    found.append(a_cascade(max_memory="4GB", **small, labels_sha256="c" * 64))
    assert "**not** the same" in page.text({"memory": found}, "x.png")


def test_a_section_measured_elsewhere_says_so_and_is_not_added_to_others() -> None:
    def side(network: float, total: float) -> dict:
        seconds = {"network": network, "total": total, "read": 1.0}
        return {"seconds": seconds, "forwards": 8, "each": [2.0], "peak_mb": 100.0}

    numbers = {
        "machine": {"cpu": "A", "python": "3.11", "quick": False, "gflops": 100.0},
        "rest": {"cfseg 120 equal": side(2.0, 6.0), "nnU-Net 120 equal": side(2.0, 46.0)},
        "equal": {"cfseg": [side(16.0, 17.0)], "nnunet": [side(16.0, 30.0)]},
        "cpu": {"machine": "A", "rest": "A", "equal": "A"},
    }
    text = page.text(numbers, "x.png")
    assert "cfseg 20 s, nnU-Net 60 s, **3.00 times as fast**" in text
    assert "another machine" not in text
    numbers["rest"]["cfseg 120 cropped"] = side(2.0, 6.0)
    numbers["cpu"]["defaults"] = "A"
    numbers["defaults"] = numbers["equal"] | {"int8": [side(4.0, 5.0) | {"each": [0.5]}]}
    text = page.text(numbers, "x.png")
    assert "in int8, in the same rounds: 5 s; median 6.00 times as fast as nnU-Net, 3.40" in text
    assert "cfseg in int8 8 s, nnU-Net 60 s, **7.50 times as fast**." in text
    del numbers["defaults"]
    numbers["cpu"]["equal"] = "B"
    text = page.text(numbers, "x.png")
    assert "This section was measured on another machine: B." in text
    assert "Derived" not in text.replace(page.HEAD, "")


def variant(networks: str, settings: str, precision: str, *organs: float) -> dict:
    return {
        "networks": networks, "settings": settings, "precision": precision,
        "organs": list(organs), "tumors": [], "seconds": [5.0, 6.0, 7.0],
    }  # fmt: skip


def test_accuracy_stands_in_points_beside_the_default() -> None:
    check = {"cases": 6, "dsc_fp32": 0.84, "dsc_int8": 0.8375, "dsc_loss": 0.005}
    rows = [
        variant("one network", "step 1", "fp32", 0.80, 0.90),
        variant("one network", "nnU-Net's", "fp32", 0.81, 0.91),
        variant("one network", "step 1", "int8", 0.80, 0.898),
    ]
    numbers = {"accuracy": {"variants": rows, "int8": {"check": check}}}
    text = page.text(numbers, "x.png")
    assert "| one network | step 1 | fp32 | 85.00 | +0.00 | - | 6 |" in text
    assert "| one network | nnU-Net's | fp32 | 86.00 | +1.00 | - | 6 |" in text
    assert "DSC 0.8400 in fp32, 0.8375 in int8" in text
    short = page._accuracy_in_short(numbers)
    assert "-1.00 against nnU-Net's; -0.10 in int8 against fp32" in short
    assert "on 2 phantoms" in short
    numbers["accuracy"]["int8"] = {"refused": "E_USAGE: NNCF is not installed"}
    assert "No int8: `E_USAGE: NNCF is not installed`" in page.text(numbers, "x.png")


@pytest.mark.parametrize(
    ("most", "start", "stop"),
    [((4, 4, 4), (13, 18, 10), (17, 22, 13)), ((99, 99, 99), (10, 10, 10), (20, 31, 13))],
)
def test_the_middle_of_a_box(most, start, stop) -> None:
    box = Box((10, 10, 10), (20, 31, 13))
    assert middle(box, most) == Box(start, stop)


@pytest.mark.slow
def test_the_cascade_under_limits(tmp_path) -> None:
    values = {
        "shape": (32, 80, 80), "spacing_mm": (9.0, 4.8, 4.8), "folder": tmp_path, "quick": True,
        "out": tmp_path / "out.nii.gz", "step": 0.5, "backend": "torch",
    }  # fmt: skip
    found = [
        tasks.cascade(values | {"max_memory": limit, "most": most})
        for limit, most in (("40GB", 2), ("20GB", 2), ("10MB", 2), ("20GB", None))
    ]
    assert found[0]["labels_sha256"] == found[1]["labels_sha256"]
    assert len(found[0]["labels_found"]) > 2  # random weights, but no empty map
    assert found[2]["refused"].startswith("E_TOO_LARGE")
    assert [set(f["windows"]) for f in (found[0], found[3])] == [set(NAMES)] * 2
    assert all(len(found[0]["each"][name]) <= 2 for name in NAMES)
    assert len(found[3]["each"]["organ"]) == found[3]["windows"]["organ"]
    for made in found:
        made |= {"slices": 32, "spacing_mm": 9.0, "peak_mb": 1.0, "max_memory": "x", "most": 2}
    assert "refused" in page.text({"memory": found}, "x.png")


@pytest.mark.slow
def test_accuracy_of_a_setting(tiny_bundle, tmp_path) -> None:
    cohort = write_cohort(tmp_path / "cohort", cases=1, seed=5)
    values = {"bundle": tiny_bundle, "cohort": cohort, "backend": "torch", "precision": "fp32"}
    found = tasks.accuracy(values | {"set": ("stages=coarse",)})
    assert 0 <= found["organs"][0] < 0.5  # random weights
    assert found["seconds"][0] > 0


def test_settings_of_accuracy_are_keys_of_the_recipe() -> None:
    for networks, settings, overrides, precision in VARIANTS:
        made = with_overrides(Cascade(), overrides)
        assert made.mirror == ("mirroring" in settings)
        assert made.gaussian == ("Gaussian" in settings)
        assert (made.stages == ("coarse",)) == (networks == "one network")
        assert (made.step.coarse == 0.5) == ("0.5" in settings)
        assert precision in ("fp32", "int8")


class Recorded:
    """Stands for the processes that measure: notes what they are asked, as JSON, and answers."""

    def __init__(self, int8: dict) -> None:
        self.asked: list[tuple[str, dict]] = []
        self.int8 = int8

    def __call__(self, task: str, **values: object) -> dict:
        values = json.loads(json.dumps(values, default=str))
        self.asked.append((task, values))
        if task == "quantized":
            return dict(self.int8)
        if task == "accuracy":
            return {"organs": [0.8], "tumors": [0.1], "seconds": [5.0], "peak_mb": 1.0}
        if values["max_memory"] in ("2GB", "300MB"):
            return {"refused": "E_TOO_LARGE: no", "region": [30, 200, 250], "peak_mb": 9.0}
        return a_cascade()


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("int8", [{"refused": "E_MODEL: too much"}, {"check": {
    "cases": 6, "dsc_fp32": 0.84, "dsc_int8": 0.83, "dsc_loss": 0.02}}])  # fmt: skip
def test_what_the_sections_ask_for(quick, int8, tmp_path, monkeypatch) -> None:
    recorded = Recorded(int8)
    monkeypatch.setattr(main, "run", recorded)
    monkeypatch.setattr(main, "synthetic_scan", lambda *_: None)
    monkeypatch.setattr("cfseg.phantoms.cohort.write_cohort", lambda out, **_: out)
    bench = main.Bench(Namespace(backend="openvino", quick=quick, scratch=tmp_path))
    numbers = {"accuracy": bench.accuracy()}
    asked = [values for task, values in recorded.asked if task == "accuracy"]
    possible = [v for v in VARIANTS if v[3] == "fp32" or "refused" not in int8]
    assert len(asked) == len(possible)
    assert {v["bundle"] for v in asked if v["precision"] == "fp32"} == {None}
    cohorts = recorded.asked[0][1]
    assert len({cohorts["calibration"], cohorts["check"], asked[0]["cohort"]}) == 3
    assert all(v["bundle"] == cohorts["bundle"] for v in asked if v["precision"] == "int8")
    recorded.asked.clear()
    numbers["memory"] = bench.memory()
    limits = [values["max_memory"] for _, values in recorded.asked]
    assert limits == [None, "8GB", "4GB", "300MB" if quick else "2GB", "8GB", "4GB"]
    assert [values["most"] for _, values in recorded.asked] == [2, 2, 2, 2, None, None]
    numbers["cascade"] = bench.cascade()
    assert [c["slices"] for c in numbers["cascade"]] == list(PAPER_SIZES)[: 2 if quick else None]
    text = page.text(json.loads(json.dumps(numbers)), "x.png")
    assert "## Accuracy" in text
    assert text.count("| 80.00 | +0.00 |") == len(asked)
    draw_cascade(numbers["cascade"], tmp_path / "x.png")


def test_augmentation_is_compared_round_by_round() -> None:
    speeds = {"cfseg": (30.0, 10.0, 40.0), "one worker": (3.0, 2.0, 10.0), "library": (15, 10, 10)}
    made = {
        side: [{"samples_per_s": s, "gflops": 90.0} for s in each] for side, each in speeds.items()
    }
    about = {"patch": [64, 160, 224], "elastic": 0.2, "samples": 60, "rounds": made}
    text = page.text({"training": {"augmentation": [about]}}, "x.png")
    assert "64x160x224, elastic 0.2, 60 samples a round" in text
    assert "| 2 | 90 | 10 | 2 | 10 |" in text
    assert "Median of the rounds: 5.0 times one worker, 2.0 times library." in text


def test_augmentation_is_measured(phantom, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(augmentation, "generate", lambda *_: phantom)
    monkeypatch.setattr(augmentation, "SPACING_MM", (8.0, 8.0, 8.0))
    about = augmentation.QUICK[0]
    values = about | {"crops": augmentation.write_crops(about["patch"], tmp_path), "seed": 0}
    assert tasks.augmentation(values)["samples_per_s"] > 0


def test_every_task_of_a_section_is_there() -> None:
    names = {"cascade", "accuracy", "quantized", "steps", "augmentation", "stock_augmentation"}
    assert names <= set(tasks.TASKS)
