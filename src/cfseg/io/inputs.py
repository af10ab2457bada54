"""Where the inputs of a folder of results lie, for those who look at both together.

Paths may name patients, so no status, summary or report holds one. They are kept apart, in hidden
files that only their owner can read: ``OUT/.inputs/CASE``. Leave them out when you pass OUT on.
"""

import re
from pathlib import Path

from cfseg.errors import InputError
from cfseg.io.atomic import replacing
from cfseg.io.names import case_id, find_scans

FOLDER = ".inputs"
_ABSOLUTE = re.compile(r"""(?<![\w.)/\\])(?:[A-Za-z]:)?[/\\](?:[^:'"\n]*[/\\])?([^\s'":;,)/\\]*)""")
"""A path from the root: up to its last separator it may hold blanks; its name is the group."""
_PATH = re.compile(r"""(?:[A-Za-z]:)?[^\s'"(]*[/\\](?:[^:'"\n]*[/\\])?[^\s'":;,)]*""")
"""What looks like a path: up to its last separator it may hold blanks."""


def without_folders(text: str, *paths: Path | None) -> str:
    """Return a message as it may be kept: of each path the name alone, which a case is called by.

    Args:
        text: of an error or a note.
        paths: that it may hold, as they were given; a folder's files keep the folder's name. Other
            paths are cut if they begin at the root.
    """
    known = [form for path in paths if path is not None for form in (path, path.resolve())]
    for path in sorted(known, key=lambda form: len(str(form)), reverse=True):
        if len(path.parts) > 1:
            text = text.replace(str(path), path.name)
    return _ABSOLUTE.sub(lambda found: found[1] or "(folder)", text)


def without_paths(text: str) -> str:
    """Return a text in which whatever looks like a path is left out, its name too."""
    return _PATH.sub("(file)", text)


def remember_input(out: Path, case: str, path: Path) -> None:
    """Write down where the input of a case lies.

    Raises:
        ResourceError: the disk refuses.
    """
    with replacing(out / FOLDER / case) as temporary:
        temporary.touch(mode=0o600)
        temporary.write_text(str(path.resolve()), encoding="utf-8")


def find_input(out: Path, case: str, images: Path | None = None) -> Path:
    """Return where the input of a case lies.

    Args:
        out: folder of results.
        case: its id.
        images: a folder of scans, or one scan, that goes before what is written down.

    Raises:
        InputError: ``E_MISSING``, it is not there.
        UsageError: there is no ``images``.
    """
    if images is not None:
        scans, _ = find_scans([images])
        for scan in scans:
            if case_id(scan) == case:
                return scan
    try:
        path = Path((out / FOLDER / case).read_text(encoding="utf-8"))
        is_there = path.exists()
    except (OSError, ValueError):
        is_there = False
    if not is_there:
        raise InputError(
            f"{case}: its CT is not where it was, or was never written down; say where the CTs are "
            "with --images",
            code="E_MISSING",
        )
    return path
