import base64
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from cfseg.errors import ResourceError
from cfseg.reports.curves import CurvePoint, draw_curves
from cfseg.reports.training_page import TrainingPage, write_training_page

HOSTILE = '"><img src=x onerror=alert(1)></script><b>'
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="
)
PAGE = TrainingPage(
    title="Training of a cohort",
    recipe="paper-small",
    notice="Not for clinical use.",
    groups={"group 1: unlabelled": 18, "group 2: labelled": 36},
    learned={"coarse": 8, "organ": 54},
    curves={
        "coarse": [CurvePoint(1, 0.5, 0.01, None), CurvePoint(2, 0.4, 0.01, 0.8125)],
        "organ": [CurvePoint(1, 0.5, 0.01, None)],
    },
    cost=[
        {"hours": "1.25", "network": "coarse", "patch": "64x160x224", "feed share": "4 %"},
        {"hours": "2.50", "network": "organ", "patch": "64x160x224", "CO2, g": "1,204"},
    ],
    environment={"CPU": "EPYC, 2 cores", "GPU (number and type)": "none"},
    chosen=[{"network": "coarse", "epoch": "2", "checkpoint": "best", "chosen by": "the cascade"}],
    looks=(),
    left_out={"case_7": "its labels lie on another grid"},
)


class Parsed(HTMLParser):
    """The tags of a page, the cells of its tables, and its words."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.tables, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_data(self, data):
        tag = self.tags[-1][0] if self.tags else ""
        if tag in ("td", "th") and data.strip():
            self.tables[-1][-1][-1] += data
        if tag not in ("style", "script") and data.strip():
            self.words.append(data.strip())

    def images(self):
        return [attributes for tag, attributes in self.tags if tag == "img"]


def written(tmp_path, page=PAGE):
    file = tmp_path / "new" / "training.html"
    plot = tmp_path / "curves.png"
    draw_curves(plot, page.curves)
    write_training_page(file, page, plot)
    assert [it.name for it in file.parent.iterdir()] == [file.name]
    return Parsed(file.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return written(tmp_path_factory.mktemp("page"))


def test_the_page_holds_every_table(page):
    assert page.tables == [
        [["network", "epoch", "checkpoint", "chosen by"], ["coarse", "2", "best", "the cascade"]],
        [
            ["network", "hours", "patch", "feed share", "CO2, g"],
            ["coarse", "1.25", "64x160x224", "4 %", "–"],
            ["organ", "2.50", "64x160x224", "–", "1,204"],
        ],
        [["group 1: unlabelled", "18", ""], ["group 2: labelled", "36", ""]],
        [["case", "reason"], ["case_7", "its labels lie on another grid"]],
        [["coarse", "8", ""], ["organ", "54", ""]],
    ]
    for words in (PAGE.title, "recipe paper-small", PAGE.notice, "EPYC, 2 cores", "0.812"):
        assert words in page.words
    widths = [float(it["width"]) for tag, it in page.tags if tag == "rect"]
    assert widths == pytest.approx([50, 100, 100 * 8 / 54, 100])


def test_columns_of_numbers_are_aligned_at_the_right(page):
    heads = [at for at, (tag, _) in enumerate(page.tags) if tag == "thead"]
    cost = [it.get("class") for tag, it in page.tags[heads[1] + 2 : heads[1] + 7]]
    assert cost == [None, "n", None, "n", "n"]


def test_the_curves_are_in_it_and_told_in_words(page):
    (curves,) = page.images()
    assert curves["src"].startswith("data:image/png;base64,iVBOR")
    assert curves["alt"] == (
        "Loss, score of validations and learning rate over epochs; "
        "coarse, best score 0.812 in epoch 2; organ, no score"
    )


def test_pictures_are_inside_and_one_that_is_missing_is_told(tmp_path):
    looks = [tmp_path / name for name in ("coarse-windows.png", "gone.png", "cut.png")]
    looks[0].write_bytes(PNG)
    looks[2].write_bytes(b"")
    page = written(tmp_path, replace(PAGE, looks=looks))
    _, look = page.images()
    assert base64.b64decode(look["src"].removeprefix("data:image/png;base64,")) == PNG
    assert look["alt"]
    assert "coarse windows." in page.words
    for name in ("gone.png", "cut.png"):
        assert f"{name} is not there or is not a PNG, so it is left out." in page.words


def test_the_page_loads_nothing(page):
    for tag, attributes in page.tags:
        assert tag not in ("link", "script", "iframe", "object", "embed", "base")
        for name, value in attributes.items():
            assert name != "style"
            assert not re.match(r"(?i)\s*(https?:|//)", value or "")
    (policy,) = (it["content"] for tag, it in page.tags if "http-equiv" in it)
    assert "default-src 'none'" in policy
    assert "script-src 'none'" in policy
    assert "unsafe" not in policy


def test_foreign_text_is_shown_and_does_no_harm(tmp_path):
    row = {HOSTILE: HOSTILE, "network": HOSTILE}
    look = tmp_path / f"{HOSTILE.replace('/', '_')}.png"
    look.write_bytes(PNG)
    page = written(
        tmp_path,
        TrainingPage(
            HOSTILE, HOSTILE, HOSTILE, {HOSTILE: 1}, {HOSTILE: 1},
            {HOSTILE: [CurvePoint(1, 1.0, 0.1, 0.5)]}, [row], {HOSTILE: HOSTILE}, [row],
            [look, tmp_path / f"{look.name}.gone"], {HOSTILE: "\x1b<b>"},
        ),
    )  # fmt: skip
    assert page.words.count(HOSTILE) >= 10
    assert "\\x1b<b>" in page.words
    assert len(page.images()) == 2
    assert not [tag for tag, it in page.tags if tag in ("b", "script") or "onerror" in it]


def test_reasons_name_no_folder(tmp_path):
    page = written(tmp_path, replace(PAGE, left_out={"a": "/data/DOE/ct.nii.gz: it is cut"}))
    assert page.tables[3][1] == ["a", "(file): it is cut"]


def test_a_training_that_has_just_begun_has_a_page(tmp_path):
    nothing = TrainingPage("t", "r", "", {}, {}, {}, [], {}, [], [], {})
    page = written(tmp_path, nothing)
    assert page.tables == []
    for words in ("None yet.", "Nothing measured yet.", "Left out, 0 cases"):
        assert words in page.words
    page = written(tmp_path, replace(nothing, groups={"group 1": 0}))
    assert [it["width"] for tag, it in page.tags if tag == "rect"] == ["0.0"]


def test_says_where_it_cannot_write(tmp_path):
    (tmp_path / "file").touch()
    draw_curves(tmp_path / "curves.png", PAGE.curves)
    with pytest.raises(ResourceError, match="cannot be written"):
        write_training_page(tmp_path / "file" / "training.html", PAGE, tmp_path / "curves.png")
