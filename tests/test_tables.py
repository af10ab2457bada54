"""Text of others in what a terminal, a browser or a spreadsheet reads."""

import csv

import pytest

from cfseg.tables import Table, cell, csv_text, markdown, shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Müller, 3 ml ± 1", "Müller, 3 ml ± 1"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("cod.\u202exe", r"cod.\u202exe"),
        ("a\nb\rc", r"a\x0ab\x0dc"),
        ("a\u2028b", r"a\u2028b"),
        ("not \udcff text", r"not \udcff text"),
        ("\U000e0041", r"\U000e0041"),
        ("a\xa0b", "a\xa0b"),
    ],
)
def test_what_is_not_seen_is_shown(text, expected):
    assert shown(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("=cmd()", "'=cmd()"),
        ("  +1", "'  +1"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", r"\x09=1"),
        ("-", "-"),
        ("a=1", "a=1"),
        ("", ""),
    ],
)
def test_a_cell_is_no_formula(text, expected):
    assert cell(text) == expected


def test_numbers_of_a_csv_stay_numbers_and_what_is_undefined_is_empty():
    rows = [("=x", -5.2, 3, None, float("nan"), float("-inf"), True, "a,b")]
    text = csv_text(("case", "a", "b", "c", "d", "e", "f", "g"), rows)
    assert list(csv.reader(text.splitlines()))[1] == [
        "'=x", "-5.2", "3", "", "", "", "True", "a,b",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a|b", r"a\|b"),
        ('"><img src=x onerror=alert(1)>', r'">\<img src=x onerror=alert(1)>'),
        (r"\<b>", r"\\\<b>"),
        ("[a](javascript:x)", r"[a]\(javascript:x)"),
        ("a\n# b", r"a\x0a# b"),
        ("< 0.001", "< 0.001"),
        ("+1.20 [0.10, 2.30]", "+1.20 [0.10, 2.30]"),
    ],
)
def test_markdown_holds_text_and_no_markup(text, expected):
    page = markdown(text, text, [Table(text, (text, "n"), ((text, "1"),), text)], [text])
    assert page.splitlines() == [
        f"# {expected}", "", expected, "", f"## {expected}", "", f"| {expected} | n |",
        "| --- | ---: |", f"| {expected} | 1 |", "", expected, "", f"- {expected}",
    ]  # fmt: skip
