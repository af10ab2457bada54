"""Text from files that others made, as it may be shown, and in tables.

A file's name, a bundle's notice or a DICOM description can hold what a terminal, a browser or a
spreadsheet obeys: escape sequences, marks that turn the direction of writing, formulas.
"""

import unicodedata

_FORMULA = ("=", "+", "-", "@")
_HIDDEN = ("C", "Zl", "Zp")
"""Unicode categories of what is not seen: control, format, surrogate, private, separators."""


def shown(text: str) -> str:
    r"""Return foreign text with all that is not seen as escapes, as in ``\\x1b`` or ``\\u202e``."""
    if text.isprintable():
        return text
    return "".join(_escaped(c) if unicodedata.category(c).startswith(_HIDDEN) else c for c in text)


def cell(text: str) -> str:
    """Return foreign text as a cell of a table that a spreadsheet takes for text, no formula."""
    safe = shown(text)
    return f"'{safe}" if safe.lstrip().startswith(_FORMULA) else safe


def _escaped(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
