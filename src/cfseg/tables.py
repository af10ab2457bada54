"""Text from files that others made, as it may be shown, and tables as CSV and Markdown.

A file's name, a bundle's notice or a DICOM description can hold what a terminal, a browser or a
spreadsheet obeys: escape sequences, marks that turn the direction of writing, markup, formulas.
"""

import csv
import io
import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_FORMULA = re.compile(r"\s*[=+\-@].")
_HIDDEN = ("C", "Zl", "Zp")
"""Unicode categories of what is not seen: control, format, surrogate, private, separators."""
_MARKUP = re.compile(r"\||<(?=[A-Za-z/!?])|(?<=\])\(|\\(?=[!-/:-@\[-`{-~])")
"""What begins a cell, an HTML tag, the address of a link or an escape in Markdown."""


@dataclass(frozen=True)
class Table:
    """A table ready to be shown.

    Attributes:
        title: above it.
        header: of the columns; the first holds names, the others numbers.
        rows: as many cells as the header.
        note: below it.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def shown(text: str) -> str:
    r"""Return foreign text with all that is not seen as escapes, as in ``\\x1b`` or ``\\u202e``."""
    if text.isprintable():
        return text
    return "".join(_escaped(c) if unicodedata.category(c).startswith(_HIDDEN) else c for c in text)


def listed(names: Sequence[str], most: int = 5) -> str:
    """Return names for a message: of many the first ones, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def cell(text: str) -> str:
    """Return foreign text as a cell of a table that a spreadsheet takes for text, no formula."""
    safe = shown(text)
    return f"'{safe}" if _FORMULA.match(safe) else safe


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a CSV; all CSV files of the project are made here.

    Args:
        header: names of the columns.
        rows: as many values as the header; text is taken for foreign text, numbers stay, and None
            or a number that is not finite leaves its cell empty.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_csv_cell(value) for value in row] for row in rows)
    return stream.getvalue()


def markdown(title: str, head: str, tables: Iterable[Table], notes: Sequence[str] = ()) -> str:
    """Return a page of tables; no text in it can become markup."""
    lines = [f"# {_plain_markdown(title)}", "", _plain_markdown(head), ""]
    for table in tables:
        lines += [f"## {_plain_markdown(table.title)}", "", _markdown_row(table.header)]
        lines.append(f"| {' | '.join(('---', *('---:' for _ in table.header[1:])))} |")
        lines += [_markdown_row(row) for row in table.rows]
        lines += ["", _plain_markdown(table.note), ""] if table.note else [""]
    lines += [f"- {_plain_markdown(note)}" for note in notes]
    return "\n".join(lines).rstrip() + "\n"


def _csv_cell(value: object) -> object:
    if isinstance(value, str):
        return cell(value)
    return "" if isinstance(value, float) and not math.isfinite(value) else value


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_plain_markdown, cells))} |"


def _plain_markdown(text: str) -> str:
    return _MARKUP.sub(r"\\\g<0>", shown(text))


def _escaped(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
