"""What the steps of a case cost: the measured cascade is the real one."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cfseg import costs
from cfseg.cli import app
from cfseg.costs import STEPS, CaseCost, measure_case, stage_tables, tables, write_costs
from cfseg.inference.steps import StageCost
from cfseg.io import read_scan
from cfseg.networks.operations import window_operations
from cfseg.segmenter import Segmenter
from tiny_ct import ct

NETWORKS = ["coarse", "tumor_1", "tumor_2", "organ"]


@pytest.fixture(scope="module")
def segmenter(tiny_bundle: Path) -> Segmenter:
    return Segmenter(tiny_bundle, "cpu", 1, ("region.min_organs_ml=0",), backend="torch")


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    return ct(tmp_path / "scans" / "x_0000.nii.gz")


def test_each_step_of_the_real_cascade_is_measured(segmenter, scan, monkeypatch):
    kept = []
    write = costs.write_label_map

    def keep(path, label_map, source):
        kept.append(label_map.ids.copy())
        write(path, label_map, source)

    monkeypatch.setattr(costs, "write_label_map", keep)
    seen: set[str] = set()
    found = measure_case(scan, segmenter, on_window=lambda name, *_: seen.add(name))
    assert np.array_equal(kept[0], segmenter.segment(scan).label_map.ids)
    assert [cost.stage for cost in found.stages][:4] == NETWORKS
    assert seen == set(NETWORKS)
    assert list(found.seconds) == list(STEPS)
    assert min(found.seconds.values()) >= 0
    assert found.seconds["network"] == sum(cost.seconds["network"] for cost in found.stages)
    assert found.peak_mb >= max(cost.peak_mb for cost in found.stages) > 0
    assert not found.derived
    for cost, stage in zip(
        found.stages, (segmenter.stages.coarse, *segmenter.stages.tumor), strict=False
    ):
        assert 1 <= cost.passes <= cost.windows
        assert cost.gflop == pytest.approx(cost.passes * window_operations(stage.plan) / 1e9)
        assert (cost.patch, cost.backend) == ((16, 16, 16), "torch")


def test_a_few_windows_stand_for_all_of_a_fine_network(segmenter, scan, monkeypatch):
    calls: dict[str, int] = {}
    for stage in (segmenter.stages.coarse, *segmenter.stages.tumor, segmenter.stages.organ):
        network = stage.network.ready()

        def counted(window, name=stage.name, network=network):
            calls[name] = calls.get(name, 0) + 1
            return network(window)

        monkeypatch.setattr(stage.network, "_network", counted)
    found = measure_case(scan, segmenter, most=1)
    by_name = {cost.stage: cost for cost in found.stages}
    assert len(found.stages) == 4  # the coarse mask stands in: nothing is cut, nothing grows
    assert calls["coarse"] == by_name["coarse"].passes
    for name in NETWORKS[1:]:
        cost = by_name[name]
        assert calls[name] == 2 < cost.passes  # the first one is not counted
        assert cost.derived
        assert cost.seconds["network"] == pytest.approx(cost.passes * cost.window_seconds)
    assert not by_name["coarse"].derived
    assert found.derived


def test_the_mean_of_two_networks_is_measured_one_by_one(tiny_bundle, scan):
    mean = Segmenter(tiny_bundle, "cpu", 1, ("merge.tumor=mean",), backend="torch")
    found = measure_case(scan, mean)
    assert [cost.stage for cost in found.stages][:4] == NETWORKS
    assert any(note.startswith("mean:") for note in found.notes)


def test_without_an_abdomen_only_the_coarse_network_runs(tiny_bundle, scan):
    # Nothing that the random network finds lies within 0.1 mm of the liver's centroid.
    nothing = ("region.centroid_mm=[0.1,0.1,0.1]", "region.min_organs_ml=0")
    never = Segmenter(tiny_bundle, "cpu", 1, nothing, backend="torch")
    status = never.segment(scan).result.status
    found = measure_case(scan, never)
    assert (len(found.stages) == 1) == (status == "empty")


def made_cost(stage: str = "organ", derived: bool = True) -> StageCost:
    return StageCost(
        stage=stage, backend="openvino", patch=(96, 160, 192), windows=12, passes=96,
        gflop=960.0, seconds={"prepare": 0.5, "network": 8.0, "add": 0.25, "restore": 1.0},
        window_seconds=1 / 12, derived=derived, sgemm=160.0, peak_mb=2048.0,
    )  # fmt: skip


def test_tables_worked_out_by_hand():
    work, steps = stage_tables([made_cost()])
    assert work.rows == (
        ("organ", "96x160x192", "12", "96", "960", "0.0833", "120", "160", "75 %"),
    )
    assert steps.rows == (("organ", "0.5", "8", "0.25", "1", "2048"),)
    assert "derived" in steps.note
    both = stage_tables([made_cost(), replace(made_cost(), backend="torch")], "Both")[0]
    assert (work.title, both.title) == ("Networks, openvino", "Both")
    assert [row[0] for row in both.rows] == ["organ, openvino", "organ, torch"]
    assert stage_tables([made_cost(derived=False)])[1].note == ""
    seconds = dict.fromkeys(STEPS, 0.0) | {"network": 8.0, "read": 2.0}
    case = CaseCost("x", (120, 480, 512), (2.5, 0.75, 0.75), (made_cost(),), seconds, 3000.0)
    whole = tables(case)[-1]
    assert ("network", "8", "80.0 %") in whole.rows
    assert ("reading", "2", "20.0 %") in whole.rows
    assert whole.rows[-1] == ("total (derived)", "10", "")
    assert tables(case)[0].title == "x, 512x480x120 voxels of 0.75x0.75x2.5 mm, openvino"


def test_a_cost_survives_json():
    cost = made_cost()
    again = StageCost.from_dict(json.loads(json.dumps(cost.as_dict())) | {"peak": 1})
    assert again == cost


def test_files(segmenter, scan, tmp_path):
    found = measure_case(scan, segmenter)
    write_costs(tmp_path / "out", [found])
    record = json.loads((tmp_path / "out" / "steps.json").read_text())
    assert record["threads"] == 1
    case = record["cases"][0]
    assert case["case"] == "x"
    assert case["seconds"]["total"] == pytest.approx(sum(found.seconds.values()))
    assert case["stages"][0]["percent_of_sgemm"] > 0
    rows = list(csv.DictReader((tmp_path / "out" / "stages.csv").read_text().splitlines()))
    assert [row["stage"] for row in rows] == [cost.stage for cost in found.stages]
    assert float(rows[0]["network_seconds"]) == found.stages[0].seconds["network"]
    steps = list(csv.DictReader((tmp_path / "out" / "steps.csv").read_text().splitlines()))
    assert [row["step"] for row in steps] == list(STEPS)


def test_the_command(tiny_bundle, scan, tmp_path):
    bad = scan.parent / "bad.nii.gz"
    bad.write_text("no scan")
    out = tmp_path / "out"
    options = ["--steps", "-m", str(tiny_bundle), "--threads", "1", "--backend", "torch"]
    ran = CliRunner().invoke(app, ["benchmark", str(scan.parent), *options, "-o", str(out)])
    assert ran.exit_code == 3
    assert "upsampling and argmax" in ran.output
    assert "bad.nii.gz: refused: E_FORMAT" in ran.output
    assert {path.name for path in out.iterdir()} == {"steps.json", "steps.csv", "stages.csv"}
    ran = CliRunner().invoke(app, ["benchmark", str(scan), *options])
    assert ran.exit_code == 0
    ran = CliRunner().invoke(app, ["benchmark", str(bad), *options])
    assert ran.exit_code == 4


@pytest.mark.parametrize(
    ("options", "what"), [([], "-o FOLDER"), (["--steps", "--command", "x {input}"], "--command")]
)
def test_wrong_calls(scan, options, what):
    ran = CliRunner().invoke(app, ["benchmark", str(scan), *options])
    assert ran.exception is not None
    assert what in str(ran.exception)


def test_reading_is_that_of_predict(segmenter, scan):
    assert measure_case(scan, segmenter).shape == read_scan(scan).volume.geometry.shape
