from pathlib import Path

import matplotlib.image

from cfseg.dataset.cases import Case
from cfseg.dataset.groups import Grouping, group
from cfseg.labels import ORGAN_IDS
from cfseg.reports.groups import draw_groups, groups_figure

SETS = {(): 18, ORGAN_IDS: 2, (1, 2): 5, (1, 14): 15}


def grouping(sets=SETS):
    names = iter(range(10_000))
    cases = [
        Case(f"{next(names):04d}", Path(), Path(), frozenset(ids))
        for ids, count in sets.items()
        for _ in range(count)
    ]
    return Grouping(Path("cohort"), "FLARE", group(cases), ())


def test_the_bars_are_as_long_as_the_groups():
    left, right = draw_groups(grouping()).axes
    assert [bar.get_width() for bar in left.patches] == [18, 22, 7, 15, 5, 2]
    counts = [bar.get_width() for bar in right.patches]
    assert counts == [22, 7, *[2] * 11, 15]


def test_the_picture_is_written(tmp_path):
    path = tmp_path / "new" / "groups.png"
    groups_figure(grouping(), path)
    assert matplotlib.image.imread(path).std() > 0.05
    assert [p.name for p in path.parent.iterdir()] == ["groups.png"]


def test_a_cohort_without_cases_can_be_drawn():
    assert len(draw_groups(grouping({})).axes) == 2
