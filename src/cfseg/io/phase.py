"""The contrast phase of a DICOM series, as far as its tags tell."""

import re
from pathlib import Path

from cfseg.io.dicom_tags import header_of, quiet, text

_WORDS = {
    "without contrast": r"nativ|(non|without|pre).?contrast|unenhanced|plain|\bnc(ct)?\b",
    "arterial": r"arter|\bart\b|angio|\bcta\b",
    "portal venous": r"portal|venous|venoe?s|venös|\bp?v(en|p)?\b",
    "delayed": r"delay|\blate\b|excret|equilib|spät",
}
_FIELDS = ("SeriesDescription", "ProtocolName", "StudyDescription")


def phase_of(path: Path) -> str:
    """Return the phase of contrast in words, with what says so; of a file of the series.

    Raises:
        InputError: ``E_CORRUPT``.
    """
    with quiet():
        header = header_of(path, [*_FIELDS, "ContrastBolusAgent", "SOPInstanceUID"])
        if header is None:
            return "unknown"
        for field in _FIELDS:
            said = text(header, field)
            for phase, words in _WORDS.items():
                if re.search(words, said, re.IGNORECASE):
                    return f"{phase} ({field}: {said})"
        agent = text(header, "ContrastBolusAgent")
    return f"unknown, with contrast ({agent})" if agent else "unknown"
