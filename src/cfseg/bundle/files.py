"""Files of a bundle: read only if they are those that were meant, written whole or not at all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cfseg.bundle.manifest import MANIFEST, Manifest, sha256_of
from cfseg.errors import ModelError, UsageError
from cfseg.io import make_folder, writing


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


@contextmanager
def new_bundle(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a folder to fill; at the end it becomes ``path``, after an error it is gone.

    Args:
        path: folder of the bundle.
        overwrite: replace a bundle of this path.

    Raises:
        UsageError: the path exists and ``overwrite`` is not set, or it is not a bundle.
        ResourceError: ``E_DISK``, the disk is full or refuses.
    """
    _check_target(path, overwrite=overwrite)
    make_folder(path.parent)
    with writing(path):
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".tmp-{path.name}-"))
        try:
            yield temporary
            temporary.chmod(0o755)
            _put_in_place(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``bundle.json`` into a folder that nobody reads yet."""
    text = manifest.model_dump_json(indent=2) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def _check_target(path: Path, *, overwrite: bool) -> None:
    if not path.exists():
        return
    if not overwrite:
        raise UsageError(f"{path} exists; choose another name, or set --overwrite")
    if not (path / MANIFEST).is_file() and not (path.is_dir() and not any(path.iterdir())):
        raise UsageError(f"{path} is not a bundle, so it is not overwritten; choose another name")


def _put_in_place(temporary: Path, path: Path) -> None:
    if not path.exists():
        temporary.replace(path)
        return
    old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".old-{path.name}-"))
    path.replace(old)
    temporary.replace(path)
    shutil.rmtree(old)
