"""An array on disk in chunks, of which a crop touches few: a Blosc2 frame, and a record beside it.

Of a CT at 2 mm the frame has a third of the bytes, and a crop of 64 x 160 x 224 takes 10 ms of one
core; from zarr with the same codec it takes 16 ms, from a file of zstd chunks 27 ms.
"""

# blosc2 ships no types.

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from cfseg.errors import InputError, UsageError
from cfseg.foreign import Stored, read_object
from cfseg.geometry import Triple
from cfseg.io import replacing, write_json, writing

try:
    import blosc2
except ImportError as missing:
    raise UsageError(
        f"training needs {missing.name}: pip install 'cfseg[train]'", code="E_EXTRA"
    ) from missing

CHUNK: Triple = (32, 64, 64)
"""Voxels; a chunk is one block of Blosc2, so that its voxels lie in order."""

blosc2.set_releasegil(True)  # else a thread that reads ahead would hold up the one that trains


class _Record(Stored):
    shape: list[int]
    bytes: int
    sha256: str
    voxels: dict[str, int]


_RECORD = TypeAdapter(_Record)


@dataclass(frozen=True)
class Chunked:
    """A (Z, Y, X) array in a file. Threads may read one at the same time.

    Attributes:
        file: of the array.
        shape: (z, y, x) voxels.
        bytes: of the file.
        sha256: of the file.
        voxels: of a label map, how many voxels each label has.
    """

    file: Path
    shape: Triple
    bytes: int
    sha256: str
    voxels: Mapping[int, int] = field(default_factory=dict, hash=False)

    @classmethod
    def find(cls, file: Path) -> Self | None:
        """Return a file that was written, None if it is not there or not whole."""
        try:
            record = _Record.model_validate(read_object(_record_file(file), _RECORD))
            if file.stat().st_size != record.bytes:
                return None
            z, y, x = record.shape
            voxels = {int(label): count for label, count in record.voxels.items()}
        except (OSError, ValueError):
            return None
        return cls(file, (z, y, x), record.bytes, record.sha256, voxels)

    @staticmethod
    def write(
        file: Path,
        array: npt.NDArray[Any],
        voxels: Mapping[int, int] | None = None,
        places: Mapping[int, npt.NDArray[np.int32]] | None = None,
    ) -> None:
        """Write an array; the record, which says that it is whole, comes last.

        Args:
            file: of the array.
            array: (Z, Y, X).
            voxels: of a label map, how many voxels each label has.
            places: of a label map, where some voxels of each label are in the flat array.

        Raises:
            ResourceError: ``E_DISK``.
        """
        chunk = [min(most, size) for most, size in zip(CHUNK, array.shape, strict=True)]
        packed = blosc2.asarray(
            np.ascontiguousarray(array), chunks=chunk, blocks=chunk,
            cparams=blosc2.CParams(
                codec=blosc2.Codec.LZ4HC, clevel=5, nthreads=1,
                filters=[blosc2.Filter.BITSHUFFLE], filters_meta=[0],
            ),
        )  # fmt: skip
        for label, found in (places or {}).items():
            packed.schunk.vlmeta[str(label)] = found.tobytes()
        contents = packed.to_cframe()  # the library itself would not say what the disk refuses
        with replacing(file) as temporary:
            temporary.write_bytes(contents)
        record = _Record(
            shape=list(array.shape), bytes=len(contents),
            sha256=hashlib.sha256(contents).hexdigest(),
            voxels={str(label): count for label, count in (voxels or {}).items()},
        )  # fmt: skip
        write_json(_record_file(file), record.model_dump(mode="json"))

    def read(self, start: Triple, out: npt.NDArray[Any]) -> None:
        """Fill an array with what this one has in a box; the rest of it is left as it is.

        The library's own slicing keeps the interpreter's lock while it inflates; a chunk by itself
        is inflated, and copied by numpy, without.

        Args:
            start: first voxel of the box, (z, y, x); it may lie outside, as may the last.
            out: (Z, Y, X) of the box's shape and the array's type.

        Raises:
            InputError: ``E_CORRUPT``, the file is damaged or gone.
        """
        with self._reading():
            array = _open(self.file)
            _, rows, columns = (-(-n // c) for n, c in zip(self.shape, array.chunks, strict=True))
            chunk = np.empty(array.chunks, dtype=array.dtype)
            sides = zip(start, out.shape, self.shape, array.chunks, strict=True)
            for z, y, x in product(*(spans(*side) for side in sides)):
                packed = array.schunk.get_chunk((z.chunk * rows + y.chunk) * columns + x.chunk)
                blosc2.decompress2(packed, dst=chunk)
                out[z.out, y.out, x.out] = chunk[z.part, y.part, x.part]

    def places(self, label: int) -> npt.NDArray[np.int32]:
        """Return the places of a label that were written, (n,).

        Raises:
            InputError: ``E_CORRUPT``.
        """
        with self._reading():
            array = _open(self.file)  # what hangs on it does not keep it alive
            found = array.schunk.vlmeta[str(label)]
        return np.frombuffer(found, dtype=np.int32)

    def verify(self) -> None:
        """Compare the file with its digest.

        Raises:
            InputError: ``E_CORRUPT``.
        """
        with self._reading(), self.file.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != self.sha256:
                raise ValueError("it is not what was written")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Name the file where it cannot be read."""
        try:
            yield
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise InputError(
                f"{self.file} is damaged or gone ({error}); delete it and start again: the case is "
                "stored anew",
                code="E_CORRUPT",
            ) from error


def remove(file: Path) -> int:
    """Remove an array that was written, and return how many bytes it had.

    Raises:
        ResourceError: ``E_DISK``, it may not be removed.
    """
    with writing(file):
        size = file.stat().st_size
        _record_file(file).unlink(missing_ok=True)
        file.unlink()
    return size


@dataclass(frozen=True)
class Span:
    """What a box and a chunk share along an axis.

    Attributes:
        chunk: number of the chunk.
        part: of the chunk.
        out: the same voxels in the box.
    """

    chunk: int
    part: slice
    out: slice


def spans(start: int, length: int, size: int, chunk: int) -> list[Span]:
    """Return what a box shares with each chunk of an axis that it touches.

    Args:
        start: of the box; it may lie outside of the array, as may its end.
        length: of the box.
        size: of the array.
        chunk: length of a chunk.
    """
    first, stop = max(0, start), min(size, start + length)
    found = []
    for number in range(first // chunk, -(-stop // chunk) if first < stop else 0):
        begin = number * chunk
        low, high = max(first, begin), min(stop, begin + chunk)
        found.append(
            Span(number, slice(low - begin, high - begin), slice(low - start, high - start))
        )
    return found


def _open(file: Path) -> Any:  # noqa: ANN401 - blosc2's
    return blosc2.open(str(file), mode="r", mmap_mode="r", dparams={"nthreads": 1})


def _record_file(file: Path) -> Path:
    return file.with_suffix(".json")
