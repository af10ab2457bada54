"""The one table of labels; every other table (scores, colors, codes) is derived from it.

Order, ids and NSD tolerances are those of the FLARE 2023 evaluation; the codes are SNOMED CT.
"""

import re
from dataclasses import dataclass
from typing import Literal

Side = Literal["left", "right"]


@dataclass(frozen=True, slots=True)
class Label:
    """One FLARE label.

    Attributes:
        id: value in a label map, 1..14 (0 is background).
        name: snake_case name, as in the output of ``cfseg``.
        abbreviation: key prefix in the official ``scores.txt``, for example ``RAG``.
        color: sRGB, 0..255 each.
        snomed: SNOMED CT code of the structure.
        nsd_tolerance_mm: tolerance of the normalized surface distance, in mm.
        tubular: the official evaluation scores it only on slices that the reference labels.
        side: laterality of a paired organ, else None.
    """

    id: int
    name: str
    abbreviation: str
    color: tuple[int, int, int]
    snomed: str
    nsd_tolerance_mm: float
    tubular: bool = False
    side: Side | None = None


LABELS: tuple[Label, ...] = (
    Label(1, "liver", "Liver", (176, 84, 60), "10200004", 5),
    Label(2, "right_kidney", "RK", (230, 159, 0), "64033007", 3, side="right"),
    Label(3, "spleen", "Spleen", (148, 103, 189), "78961009", 3),
    Label(4, "pancreas", "Pancreas", (240, 228, 66), "15776009", 5),
    Label(5, "aorta", "Aorta", (214, 39, 40), "15825003", 2, tubular=True),
    Label(6, "inferior_vena_cava", "IVC", (31, 119, 180), "64131007", 2, tubular=True),
    Label(7, "right_adrenal_gland", "RAG", (23, 190, 207), "23451007", 2, side="right"),
    Label(8, "left_adrenal_gland", "LAG", (0, 158, 115), "23451007", 2, side="left"),
    Label(9, "gallbladder", "Gallbladder", (87, 171, 39), "28231008", 2),
    Label(10, "esophagus", "Esophagus", (188, 143, 143), "32849002", 3, tubular=True),
    Label(11, "stomach", "Stomach", (86, 180, 233), "69695003", 5),
    Label(12, "duodenum", "Duodenum", (255, 152, 150), "38848004", 7),
    Label(13, "left_kidney", "LK", (204, 121, 167), "64033007", 3, side="left"),
    Label(14, "tumor", "Lesion", (255, 0, 255), "108369006", 2),
)
ORGANS: tuple[Label, ...] = LABELS[:13]
TUMOR: Label = LABELS[13]
ORGAN_IDS: tuple[int, ...] = tuple(label.id for label in ORGANS)
IGNORE = 255
"""What a voxel has that nobody annotated where a network learns, whatever labels there are."""
NAMES: dict[int, str] = {label.id: label.name for label in LABELS}
_SYNONYMS = {
    "kidneyright": 2, "rkid": 2,
    "pancrease": 4,
    "aortic": 5,
    "postcava": 6, "venacavainferior": 6,
    "adrenalglandright": 7, "rightadrenal": 7, "rad": 7,
    "adrenalglandleft": 8, "leftadrenal": 8, "lad": 8,
    "oesophagus": 10,
    "kidneyleft": 13, "lkid": 13,
    "tumour": 14, "tumors": 14, "tumours": 14, "lesions": 14, "tumorlesion": 14, "cancer": 14,
}  # fmt: skip
"""What other data sets and tools call the labels, as :func:`plain_word` has it."""


def by_name(name: str) -> Label:
    """Return the label called ``name``.

    Raises:
        KeyError: there is no such label; the message lists those that exist.
    """
    for label in LABELS:
        if label.name == name:
            return label
    raise KeyError(f"no label {name!r}; the labels are {', '.join(NAMES.values())}")


def flare_id(name: str) -> int | None:
    """Return the FLARE id that a label name means, None if it means none of them.

    Case, spaces, ``_`` and ``-`` don't matter; the abbreviations of the official evaluation and
    the names that TotalSegmentator, AMOS, BTCV, VISTA and the Medical Segmentation Decathlon use
    count too.
    """
    word = plain_word(name)
    for label in LABELS:
        if word in (plain_word(label.name), plain_word(label.abbreviation)):
            return label.id
    return _SYNONYMS.get(word)


def plain_word(name: str) -> str:
    """Return the letters and digits of a name in lower case, by which names are compared."""
    return re.sub(r"[\W_]+", "", name).lower()
