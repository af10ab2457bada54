"""Files of a bundle: read only if they are those that were meant, written whole or not at all."""

import shutil
import tempfile
from pathlib import Path

from cfseg.bundle.manifest import MANIFEST, sha256_of
from cfseg.errors import ModelError, UsageError


def read_checked(path: Path, sha256: str) -> bytes:
    """Read a file of a bundle whose contents have this sha256.

    Raises:
        ModelError: the file is missing, damaged or another one.
    """
    try:
        contents = path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be read ({error.strerror}); copy the whole bundle again"
        ) from error
    found = sha256_of(contents)
    if found != sha256:
        raise ModelError(
            f"{path}: sha256 is {found[:12]}..., the manifest says {sha256[:12]}...; the file is "
            "damaged or was exchanged: copy or make the bundle again"
        )
    return contents


def check_target(path: Path, *, overwrite: bool) -> None:
    """Refuse to write a bundle where something else is, or, unless told so, over another one.

    Raises:
        UsageError: the path is taken.
    """
    if not path.exists():
        return
    if not overwrite:
        raise UsageError(f"{path} exists; choose another name, or set --overwrite")
    if not (path / MANIFEST).is_file() and not (path.is_dir() and not any(path.iterdir())):
        raise UsageError(f"{path} is not a bundle, so it is not overwritten; choose another name")


def put_in_place(temporary: Path, path: Path) -> None:
    """Give a finished folder its name; what had it before is removed."""
    if not path.exists():
        temporary.replace(path)
        return
    old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".old-{path.name}-"))
    path.replace(old)
    temporary.replace(path)
    shutil.rmtree(old)
