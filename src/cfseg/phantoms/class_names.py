"""Other people's class tables, and the tissue class that each of their names means.

Ids mean nothing here: 23 is bone in one table and the bladder in another.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from cfseg import foreign
from cfseg.errors import UsageError
from cfseg.labels import ORGAN_IDS, ORGANS, flare_id
from cfseg.phantoms.tissues import (
    AIR,
    ARTERY,
    BLADDER,
    BONE,
    BOWEL,
    CANAL,
    COLON,
    DISC,
    FLUID,
    GAS,
    HEART,
    LUNG,
    MUSCLE,
    SOFT,
    SPONGIOSA,
    SUBCUTANEOUS,
    TABLE,
    VEIN,
    VISCERAL,
)
from cfseg.tables import listed

UNKNOWN = 255
"""Of a tissue: nobody knows what it is."""
AMBIGUOUS = 254
"""One of several organs that a table puts in one class, until it is known which."""
CONTEXT: tuple[tuple[int, str], ...] = (
    (FLUID, "ascites|fluid|effusion|cyst|ureter|renal pelvis"),
    (DISC, "disc|discs|disk|cartilage|cartilages"),
    (CANAL, "canal|cord"),
    (SPONGIOSA, "spongiosa|marrow"),
    (MUSCLE, "muscle|muscles|gluteus|autochthon|iliopsoas|psoas|diaphragm"),
    (BONE, "bone|bones|spine|vertebra|vertebrae|rib|ribs|sternum|sacrum|coccyx|hip|pelvis|femur"),
    (BONE, "humerus|scapula|clavicle|clavicula|skull|skeleton"),
    (ARTERY, "artery|arteries|arterial|carotid|brachiocephalic trunk"),
    (VEIN, "vein|veins|vena|portal"),
    (HEART, "heart|atrium|atrial|ventricle|myocardium"),
    (LUNG, "lung|lungs"),
    (GAS, "gas|trachea|airway|bronchus"),
    (BOWEL, "bowel|jejunum|ileum|intestine"),
    (COLON, "colon|rectum|sigmoid|cecum"),
    (BLADDER, "bladder"),
    (SOFT, "prostate|uterus|ovary|thyroid|brain|node|nodes|soft"),
    (SUBCUTANEOUS, "subcutaneous"),
    (VISCERAL, "visceral|fat"),
    (TABLE, "table|couch"),
    (AIR, "air"),
)
"""Tissues beside the organs and what they are called; the first row whose words stand in a name
decides, so ``rib cartilage`` is no bone."""
_BACKGROUND = "background"
_NESTED = ("organs", "context", "labels")


def tissue_of(name: str) -> int | None:
    """Return the tissue class that a name means, None if it means none.

    Two organs in one class, as in ``stomach and duodenum``, are :data:`AMBIGUOUS`.
    """
    organ = flare_id(name)
    if organ is not None:
        return organ if organ in ORGAN_IDS else None
    words = set(re.findall(r"[a-z]+", name.lower()))
    if len(words & {it.name for it in ORGANS}) > 1:
        return AMBIGUOUS
    for tissue, calls in CONTEXT:
        if any(set(call.split()) <= words for call in calls.split("|")):
            return tissue
    return None


def read_classes(path: Path) -> dict[int, int]:
    """Return {id in the maps: tissue class} from a class table.

    Args:
        path: JSON with {id: name} or {name: id}, at the top or below ``organs``, ``context`` or
            ``labels``; what else there is beside those is not looked at.

    Raises:
        UsageError: it cannot be read, or a name or an id means nothing.
    """
    try:
        found = foreign.read_object(path, finite=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as a class table: {error}; repair it") from error
    parts = [found[key] for key in _NESTED if isinstance(found.get(key), Mapping)] or [found]
    named = [_pair(key, value, path) for part in parts for key, value in part.items()]
    meant = {number: _meaning(name) for number, name in named}
    if unknown := [name for number, name in named if meant[number] is None]:
        raise UsageError(
            f"{path}: nobody knows what tissue {listed(unknown)} is; name it after an organ, or "
            "for example colon, bone, muscle, artery, vein or fat"
        )
    if len(meant) < len(named):
        raise UsageError(f"{path}: two names have the same id; give each its own")
    return {number: tissue for number, tissue in meant.items() if tissue is not None}


def _meaning(name: str) -> int | None:
    return UNKNOWN if name.lower() == _BACKGROUND else tissue_of(name)


def _pair(key: str, value: object, path: Path) -> tuple[int, str]:
    number, name = (key, value) if isinstance(value, str) else (value, key)
    try:
        found = int(str(number))
    except ValueError:
        found = -1
    if not 0 <= found <= 255:
        raise UsageError(
            f"{path}: {foreign.brief(name)} has the id {foreign.brief(number)}; expected one "
            "number from 0 to 255"
        )
    return found, str(name)
