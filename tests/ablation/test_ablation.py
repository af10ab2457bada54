import csv
import io
import json
import math
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from cfseg.ablation.ablation import Ablation, CaseRows, ablate, find_bundle
from cfseg.ablation.files import as_json, cases_csv, page, write_tables
from cfseg.ablation.rows import (
    CFS,
    CSM,
    CSM_CUT,
    TWO_STAGE,
    WEIGHT_1,
    WEIGHT_2,
    Variant,
    cut_down,
    label_maps,
    rows_of,
    variants,
)
from cfseg.ablation.tables import comparisons, head, score_of, tables
from cfseg.bundle.bundle import load_stages, read_manifest
from cfseg.dataset.cases import Case
from cfseg.errors import ModelError, UsageError
from cfseg.evaluation.flare import score_case
from cfseg.evaluation.scores import CaseScores
from cfseg.geometry import Box, Geometry
from cfseg.inference.cascade import Stages, segment_volume
from cfseg.io import read_label_map, read_scan
from cfseg.labels import NAMES, ORGAN_IDS, TUMOR
from cfseg.recipes.recipe import Cascade, load, with_overrides
from cfseg.volume import LabelMap
from reading_networks import PLACES, reader, volume_of, write_reading_case

CPU = torch.device("cpu")
ROWS = (CSM_CUT, CSM, TWO_STAGE, CFS, WEIGHT_1, WEIGHT_2)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    folder = tmp_path_factory.mktemp("cases")
    return [write_reading_case(folder, name, PLACES, seed=i) for i, name in enumerate("ab")]


def test_rows_are_what_the_cascade_gives_with_these_stages(
    tiny_bundle: Path, cases: list[Case]
) -> None:
    manifest, volume = read_manifest(tiny_bundle), read_scan(cases[0].image).volume
    rows = variants(tiny_bundle, manifest, manifest.cascade, rows_of(manifest)[0], CPU)
    assert tuple(row.name for row in rows) == ROWS
    finished: list[str] = []
    made = label_maps(
        volume, rows, lambda stage, done, of: finished.append(stage) if done == of else None
    )
    stages = load_stages(tiny_bundle, manifest, manifest.roles, CPU)
    weights = {WEIGHT_1: stages.tumor[:1], WEIGHT_2: stages.tumor[1:]}
    wanted = {
        CSM: "coarse",
        TWO_STAGE: "coarse,tumor",
        CFS: "coarse,tumor,organ",
        WEIGHT_1: "coarse,tumor,organ",
        WEIGHT_2: "coarse,tumor,organ",
    }
    for name, roles in wanted.items():
        some = Stages(stages.coarse, weights.get(name, stages.tumor), stages.organ)
        cascade = with_overrides(manifest.cascade, (f"stages={roles}",))
        alone = segment_volume(volume, some, cascade).label_map.ids
        assert (made[name].ids == alone).all(), name
    # Random networks disagree on organs, if not on tumors.
    assert len({made[name].ids.tobytes() for name in (CSM, CSM_CUT, TWO_STAGE, CFS)}) == 4
    tumor = {row.name: [stage.name for stage in row.stages.tumor] for row in rows}
    assert (tumor[WEIGHT_1], tumor[WEIGHT_2]) == (["tumor_1"], ["tumor_2"])
    assert tumor[CFS] == ["tumor_1", "tumor_2"]
    # The head of 2 decoder stages is not there in so small a network.
    assert sorted(finished) == ["coarse", "coarse_stop_0", "organ", "tumor_1", "tumor_2"]


def test_a_region_that_grows_in_one_row_only_stays_exact() -> None:
    # The organ model alone sees the spleen, across the border of the region.
    places = PLACES | {3: [Box((8, 10, 14), (12, 14, 24))]}
    stages = Stages(
        reader("coarse", "coarse", (3,)),
        (reader("tumor", "tumor_1", (3,)), reader("tumor", "tumor_2", (3,))),
        reader("organ", "organ"),
    )
    volume, _ = volume_of(places)
    small = Cascade.model_validate({"region": {"margin_mm": 4, "min_organs_ml": 0}})
    rows = [
        Variant(name, stages, small.model_copy(update={"stages": roles}))
        for name, roles in (
            (TWO_STAGE, ("coarse", "tumor")),
            (CFS, ("coarse", "tumor", "organ")),
        )
    ]
    made = label_maps(volume, rows)
    for row in rows:
        alone = segment_volume(volume, row.stages, row.cascade)
        assert (made[row.name].ids == alone.label_map.ids).all()
        grown = any(note.startswith("region_grown") for note in alone.notes)
        assert grown == (row.name == CFS)


def test_the_cut_down_mask_by_hand() -> None:
    ids = np.zeros((8, 20, 20), np.uint8)
    ids[0:4, 2:8, 2:8] = 1
    ids[6, 2, 2] = 1  # a second part of the liver
    ids[2, 9, 2:6] = 7  # an adrenal gland near by
    ids[2, 11, 2:6] = 4
    ids[7, 19, 17:20] = 3  # a spleen far away
    geometry = Geometry.from_spacing(ids.shape, (20.0, 10.0, 10.0))
    authors = load("authors").cascade
    found = cut_down(LabelMap(ids, geometry), authors)
    expected = ids.copy()
    expected[6, 2, 2] = expected[2, 9, 2:6] = expected[7, 19, 17:20] = 0
    assert (found == expected).all()
    assert authors.decoder_stop == 2
    assert authors.region.ignore == (7, 8, 12)


def test_rows_that_cannot_be_had_are_left_out_with_a_note(tiny_bundle: Path) -> None:
    manifest = read_manifest(tiny_bundle)

    def only(*names: str):
        kept = tuple(entry for entry in manifest.stages if entry.name in names)
        return rows_of(manifest.model_copy(update={"stages": kept}))

    assert only("coarse", "tumor_1")[0] == (CSM_CUT, CSM, TWO_STAGE)
    assert only("coarse", "tumor_1", "organ")[0] == (CSM_CUT, CSM, TWO_STAGE, CFS)
    rows, notes = only("coarse")
    assert rows == (CSM_CUT, CSM)
    assert "two_stage, cfs, tumor_weight1, tumor_weight2" in notes[0]
    assert rows_of(manifest) == (ROWS, ())
    with pytest.raises(ModelError, match="no coarse network"):
        only("tumor_1", "organ")


def test_scores_are_kept_until_something_changes(
    tiny_bundle: Path, cases: list[Case], tmp_path: Path
) -> None:
    first = ablate(tiny_bundle, cases[:1], tmp_path, CPU)
    assert first.rows == ROWS
    assert first.exit_code == 0
    again = ablate(tiny_bundle, cases, tmp_path, CPU)
    assert [case.skipped for case in again.cases] == [True, False]
    assert _text(again.cases[0]) == _text(first.cases[0])
    nothing_to_load = ablate(tiny_bundle, cases, tmp_path, CPU)
    assert all(case.skipped for case in nothing_to_load.cases)
    other = ablate(tiny_bundle, cases[:1], tmp_path, CPU, ("step.organ=0.9",))
    assert not other.cases[0].skipped


def test_scores_are_those_of_the_official_rules(
    tiny_bundle: Path, cases: list[Case], tmp_path: Path
) -> None:
    (found,) = ablate(tiny_bundle, cases[:1], tmp_path, CPU).cases
    manifest = read_manifest(tiny_bundle)
    stages = load_stages(tiny_bundle, manifest, manifest.roles, CPU)
    scan = read_scan(cases[0].image)
    made = segment_volume(scan.volume, stages, manifest.cascade).label_map
    truth, source = read_label_map(cases[0].label)
    expected = score_case(source.to_stored(made.ids), source.to_stored(truth.ids), (4.0, 4.0, 4.0))
    assert found.rows[CFS].dsc == expected.dsc
    assert found.rows[CFS].nsd == expected.nsd
    assert set(found.rows[CSM].dsc) == set(ORGAN_IDS)


def test_a_bad_case_does_not_stop_the_others(
    tiny_bundle: Path, cases: list[Case], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"nothing")
    bad = Case("bad", broken, cases[0].label, frozenset())
    found = ablate(tiny_bundle, [bad, cases[0]], tmp_path, CPU)
    assert found.exit_code == 3
    assert found.cases[0].code.startswith("E_")
    assert [case.case for case in found.judged] == ["a"]
    nothing = ablate(tiny_bundle, [bad], tmp_path, CPU)
    assert nothing.exit_code == 4
    write_tables(tmp_path, nothing)
    assert json.loads((tmp_path / "ablation.json").read_text())["cases"][0]["code"]
    for given in ([], [Case("x", broken, None, frozenset())]):
        with pytest.raises(UsageError, match="imagesTr"):
            ablate(tiny_bundle, given, tmp_path, CPU)


# -- tables ---------------------------------------------------------------------------------------


def scores(case: str, organ: float, tumor: float | None) -> CaseScores:
    dsc = dict.fromkeys(ORGAN_IDS, organ)
    if tumor is not None:
        dsc[TUMOR.id] = tumor
    return CaseScores(case, dsc, {label: score / 2 for label, score in dsc.items()})


@pytest.fixture
def ablation() -> Ablation:
    """Six cases; each model adds 10 points, each second weight 20 points of tumor."""
    made = []
    for number in range(6):
        up = number / 100
        rows = {
            CSM_CUT: scores("", 0.5 + up, None),
            CSM: scores("", 0.6 + up, None),
            TWO_STAGE: scores("", 0.7 + up, 0.4 + up),
            CFS: scores("", 0.8 + up, 0.4 + up),
            WEIGHT_1: scores("", 0.8 + up, 0.2 + up),
            WEIGHT_2: scores("", 0.8 + up, 0.4 + up),
        }
        made.append(CaseRows(f"case_{number}", rows))
    return Ablation("tiny", "0" * 64, ROWS, tuple(made), ("a note",))


def test_tables_have_the_papers_rows_and_the_right_numbers(ablation: Ablation) -> None:
    five, six, dsc, nsd = tables(ablation)
    assert [row[0] for row in five.rows] == [
        "CSM, cut down", "CSM", "CSM + TSM (two-stage)", "CSM + TSM + OSM (CFS)",
    ]  # fmt: skip
    # Mean of 0.70 ... 0.75; SD of 0 ... 5 is 1.8708; the CSM knows no tumors.
    assert five.rows[2][1] == "72.50 ± 1.87"
    assert five.rows[1][3] == "-"
    assert five.rows[0][5:] == ("", "")
    # All of six cases better by the same: p = 2 / 2^6.
    assert five.rows[3][5:] == ("+10.00 [+10.00, +10.00]", "0.031")
    assert [row[0] for row in six.rows] == ["weight 1", "weight 2", "both weights"]
    assert six.rows[0][3] == "22.50 ± 1.87"
    assert six.rows[0][5:] == ("+20.00 [+20.00, +20.00]", "0.031")
    assert six.rows[1][6] == "1.000"
    assert len(dsc.rows) == len(nsd.rows) == 15
    assert dsc.rows[0][:3] == ("liver", "72.50 ± 1.87", "82.50 ± 1.87")
    # 13 organs differ, the tumor does not: 14 x 2/64.
    assert (dsc.rows[0][4], dsc.rows[0][5]) == ("0.031", "0.438")
    assert dsc.rows[13][0] == "tumor"
    assert dsc.rows[13][3] == "+0.00 [+0.00, +0.00]"
    assert dsc.rows[14][0] == "all organs"
    assert nsd.rows[0][1] == "36.25 ± 0.94"
    for table in tables(ablation):
        assert all(len(row) == len(table.header) for row in table.rows)


def test_few_cases_get_no_interval_and_no_p(ablation: Ablation) -> None:
    few = replace(ablation, cases=ablation.cases[:5])
    assert "Fewer than 6 cases: no interval and no p." in head(few)
    assert "Fewer" not in head(ablation)
    refused = CaseRows("x", {}, "E_GRID", "another grid")
    assert head(replace(ablation, cases=(*few.cases, refused))).startswith(
        "5 cases (1 more refused)"
    )
    five, six, dsc, _ = tables(few)
    assert five.rows[3][5:] == ("+10.00", "-")
    assert six.rows[0][5:] == ("+20.00", "-")
    assert dsc.rows[0][3:] == ("+10.00", "-", "-")


def test_a_label_that_is_nowhere_is_absent_and_not_perfect(ablation: Ablation) -> None:
    def without(case: CaseRows, organ: int, found: float) -> CaseRows:
        rows = {
            name: CaseScores(s.case, s.dsc | {organ: found}, s.nsd | {organ: found})
            for name, s in case.rows.items()
        }
        return replace(case, rows=rows, absent=(organ,))

    nowhere = replace(ablation, cases=tuple(without(c, 9, 1.0) for c in ablation.cases))
    assert tables(nowhere)[2].rows[8][:3] == ("gallbladder (6 absent)", "absent", "absent")
    painted = replace(ablation, cases=tuple(without(c, 9, 0.0) for c in ablation.cases))
    assert tables(painted)[2].rows[8][1] == "0.00 ± 0.00"
    one = replace(ablation, cases=(without(ablation.cases[0], 9, 1.0), *ablation.cases[1:]))
    assert tables(one)[2].rows[8][0] == "gallbladder (1 absent)"
    assert tables(one)[2].rows[8][1].startswith("7")


def test_the_tables_fit_a_terminal(ablation: Ablation) -> None:
    from rich.console import Console

    from cfseg.cli.judging import parts, rich_table

    console = Console(width=80, record=True, file=io.StringIO())
    for table in tables(ablation):
        for part in parts(table):
            console.print(rich_table(part))
    shown = console.export_text()
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    for cell in ("72.50 ± 1.87", "[+10.00, +10.00]", "CSM + TSM (two-stage)", "0.031", "inferior"):
        assert cell in shown


def test_fewer_rows_make_fewer_tables(ablation: Ablation) -> None:
    less = Ablation("x", "0", (CSM_CUT, CSM), ablation.cases)
    (only,) = tables(less)
    assert len(only.rows) == 2
    assert {c.second for c in comparisons(less)} == {CSM}


def test_an_organ_that_is_not_defined_is_left_out_of_the_mean() -> None:
    dsc = dict.fromkeys(ORGAN_IDS, 0.5) | {1: math.nan, 2: 1.0}
    found = CaseScores("a", dsc, dict.fromkeys(ORGAN_IDS, math.nan))
    assert score_of(found, "organs", "dsc") == pytest.approx((11 * 0.5 + 1) / 12)
    assert math.isnan(score_of(found, "organs", "nsd"))
    assert math.isnan(score_of(found, "tumor", "dsc"))
    assert score_of(found, NAMES[2], "dsc") == 1.0


def test_files_say_the_same(ablation: Ablation, tmp_path: Path) -> None:
    write_tables(tmp_path, ablation)
    assert (tmp_path / "ablation.md").read_text() == page(ablation)
    lines = list(csv.DictReader(cases_csv(ablation).splitlines()))
    # 14 labels in four rows, 13 in the two of the coarse model.
    assert len(lines) == 6 * (4 * 14 + 2 * 13)
    assert lines[0] == {
        "row": CSM_CUT, "case": "case_0", "label": "liver", "dsc": "0.5", "nsd": "0.25",
    }  # fmt: skip
    record = json.loads((tmp_path / "ablation.json").read_text())
    assert record == as_json(ablation)
    assert record["rows"][CFS]["organs"]["dsc"]["mean"] == pytest.approx(0.825)
    assert record["rows"][CSM]["tumor"]["dsc"] == {"n": 0, "mean": None, "sd": None}
    tested = {(c["first"], c["second"], c["what"], c["metric"]) for c in record["comparisons"]}
    assert {(WEIGHT_1, CFS, "tumor", "dsc"), (TWO_STAGE, CFS, "organs", "nsd")} <= tested
    assert "| CSM + TSM (two-stage) | 72.50 ± 1.87 |" in page(ablation)
    assert "- a note" in page(ablation)


def test_the_bundle_of_a_workspace_is_found(tiny_bundle: Path, tmp_path: Path) -> None:
    assert find_bundle(tiny_bundle) == tiny_bundle
    (tmp_path / "bundle").symlink_to(tiny_bundle)
    assert find_bundle(tmp_path) == tmp_path / "bundle"


def _text(case: CaseRows) -> str:
    return repr({row: (scores.dsc, scores.nsd) for row, scores in case.rows.items()})


@pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")
def test_both_backends_give_the_same_rows(tiny_bundle: Path, cases: list[Case], tmp_path) -> None:
    manifest, volume = read_manifest(tiny_bundle), read_scan(cases[0].image).volume
    names = rows_of(manifest)[0]
    made = [
        label_maps(volume, variants(tiny_bundle, manifest, manifest.cascade, names, CPU, backend))
        for backend in ("torch", "openvino")
    ]
    for name in names:
        one, other = (maps[name].ids for maps in made)
        assert (one == other).mean() >= 0.9999, name
        assert one.any()


def test_scores_of_another_backend_are_made_again(
    tiny_bundle: Path, cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def recording(*arguments: object) -> tuple[Variant, ...]:
        asked.append(str(arguments[-1]))
        return variants(*arguments[:-1])  # type: ignore[arg-type]

    monkeypatch.setattr("cfseg.ablation.ablation.variants", recording)
    monkeypatch.setattr("cfseg.networks.backends.find_spec", lambda _: object())
    found = [
        ablate(tiny_bundle, cases[:1], tmp_path, CPU, backend=backend)
        for backend in ("torch", "auto", "openvino", "torch")
    ]
    assert asked == ["torch", "openvino", "torch"]
    assert [one.backend for one in found] == ["torch", "openvino", "openvino", "torch"]
    assert [one.cases[0].skipped for one in found] == [False, False, True, False]
    assert as_json(found[1])["backend"] == "openvino"
