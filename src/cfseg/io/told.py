"""Messages without the folders in them, as these may name a patient."""

import re
from os.path import realpath
from pathlib import Path

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
    known = [form for path in paths if path is not None for form in (path, Path(realpath(path)))]
    for path in sorted(known, key=lambda form: len(str(form)), reverse=True):
        if len(path.parts) > 1:
            text = text.replace(str(path), path.name)
    return _ABSOLUTE.sub(lambda found: found[1] or "(folder)", text)


def without_paths(text: str) -> str:
    """Return a text in which whatever looks like a path is left out, its name too."""
    return _PATH.sub("(file)", text)
