import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_cohorts import ALL, FIVE, PUBLISHED, PUBLISHED_SIZES, cohort, published, touch

from cfseg.dataset.cases import Case, read_cases
from cfseg.dataset.check import check
from cfseg.dataset.groups import group, groups
from cfseg.errors import UsageError
from cfseg.labels import ORGAN_IDS

ANNOTATED = st.one_of(
    st.frozensets(st.integers(1, 14)),
    st.sampled_from([frozenset(), frozenset(ORGAN_IDS), frozenset((*ORGAN_IDS, 14))]),
)


@given(st.lists(ANNOTATED, max_size=30))
def test_groups_1_4_5_and_6_partition_the_cohort(sets):
    cases = [Case(f"{i:02d}", Path(), Path(), annotated) for i, annotated in enumerate(sets)]
    numbered = group(cases).numbered()
    names = {number: [case.name for case in found] for number, found in numbered.items()}
    assert sorted(names[1] + names[4] + names[5] + names[6]) == [case.name for case in cases]
    assert names[2] == sorted(names[3] + names[4])
    assert names[3] == sorted(names[5] + names[6])


def test_the_published_cohort_has_the_paper_s_groups(tmp_path):
    grouping = groups(published(tmp_path))
    assert grouping.groups.sizes() == PUBLISHED_SIZES
    assert len(grouping.perhaps_absent) == 21
    assert set(grouping.perhaps_absent.values()) == {9}
    assert grouping.exit_code == 0


def test_a_removed_gallbladder_completes_a_case(tmp_path):
    path = published(tmp_path)
    cases = json.loads(path.read_text())
    settled = next(name for name, said in cases.items() if len(said["annotated"]) == 12)
    cases[settled]["absent"] = [9]
    path.write_text(json.dumps(cases))
    grouping = groups(path)
    assert len(grouping.perhaps_absent) == 20
    assert (grouping.groups.sizes()[5], grouping.groups.sizes()[6]) == (483, 220)
    assert grouping.as_dict()["absent"] == {settled: ["gallbladder"]}


def test_a_case_known_to_be_without_tumor_is_in_the_same_group(tmp_path):
    path = published(tmp_path)
    before = groups(path).groups.sizes()
    cases = json.loads(path.read_text())
    free = [name for name, said in cases.items() if len(said["annotated"]) == 13]
    for name in free:
        cases[name]["absent"] = [14]
    path.write_text(json.dumps(cases))
    grouping = groups(path)
    assert grouping.groups.sizes() == before
    assert grouping.as_dict()["absent"][free[0]] == ["tumor"]


def test_what_is_present_counts_where_nobody_says_what_is_annotated(tmp_path):
    grouping = groups(cohort(tmp_path / "in"), tmp_path / "out", manifest=True)
    written = json.loads((tmp_path / "out/groups.json").read_text())
    assert written["groups"] == {
        "1": ["a"], "2": ["b", "c", "d"], "3": ["b", "c"], "4": ["d"], "5": ["b"], "6": ["c"],
    }  # fmt: skip
    assert {"annotated": list(FIVE), "cases": 1} in written["patterns"]
    again = groups(tmp_path / "out/manifest.json")
    assert again.groups.sizes() == grouping.groups.sizes()


def test_a_label_map_that_cannot_be_read_leaves_its_case_out(tmp_path):
    folder = cohort(tmp_path / "in")
    (folder / "labelsTr2200/c.nii.gz").write_bytes(b"broken")
    seen = []
    grouping = groups(folder, progress=lambda done, of: seen.append((done, of)))
    assert [(p.case, p.code) for p in grouping.refused] == [("c", "E_FORMAT")]
    assert grouping.groups.sizes()[2] == 2
    assert grouping.exit_code == 3
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_nothing_found_is_said(tmp_path):
    assert groups(tmp_path).exit_code == 4


def test_nothing_is_written_into_the_cohort(tmp_path):
    folder = cohort(tmp_path / "in")
    with pytest.raises(UsageError, match="lies in the cohort"):
        groups(folder, folder / "groups")


def test_annotations_alone_give_the_paper_s_groups(tmp_path):
    said = [list(ids) for ids, count in PUBLISHED for _ in range(count)]
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({f"case_{n:04d}": ids for n, ids in enumerate(said)}))
    grouping = groups(path, tmp_path / "out", manifest=True)
    assert grouping.groups.sizes() == PUBLISHED_SIZES
    assert (grouping.refused, grouping.exit_code) == ((), 0)
    assert len(grouping.without_scan) == 4000
    assert json.loads((tmp_path / "out/groups.json").read_text())["without_scan"] == 4000
    written = json.loads((tmp_path / "out/manifest.json").read_text())
    assert written["case_1800"] == {"annotated": list(ALL)}
    assert groups(tmp_path / "out/manifest.json").groups.sizes() == PUBLISHED_SIZES


def test_scans_without_their_label_maps_can_be_grouped_too(tmp_path):
    touch(tmp_path, "imagesTr/a_0000.nii.gz")
    (tmp_path / "manifest.json").write_text(json.dumps({"a": [1, 2], "b": [], "c": {}}))
    grouping = groups(tmp_path)
    assert grouping.groups.sizes() == {1: 1, 2: 1, 3: 1, 4: 0, 5: 1, 6: 0}
    assert grouping.without_scan == ("b",)
    assert [(problem.case, problem.code) for problem in grouping.refused] == [("c", "E_MISSING")]
    checked = check(tmp_path)
    assert {problem.code for problem in checked.problems} == {"E_MISSING"}
    with pytest.raises(UsageError):
        read_cases(tmp_path)
