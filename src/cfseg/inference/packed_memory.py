"""A memory of what networks said about a scan that is small enough to keep for many scans."""

import zlib
from collections.abc import Iterator, MutableMapping

import numpy as np

from cfseg.geometry import Geometry
from cfseg.inference.cascade import Asked
from cfseg.volume import LabelMap


class PackedMemory(MutableMapping[Asked, LabelMap]):
    """A memory of the cascade that keeps label maps compressed, a hundredth of their size."""

    def __init__(self) -> None:
        self._packed: dict[Asked, tuple[bytes, Geometry]] = {}

    def __getitem__(self, key: Asked) -> LabelMap:
        packed, geometry = self._packed[key]
        ids = np.frombuffer(bytearray(zlib.decompress(packed)), dtype=np.uint8)  # writable
        return LabelMap(ids.reshape(geometry.shape), geometry)

    def __setitem__(self, key: Asked, value: LabelMap) -> None:
        self._packed[key] = zlib.compress(value.ids.tobytes(), 1), value.geometry

    def __delitem__(self, key: Asked) -> None:
        del self._packed[key]

    def __iter__(self) -> Iterator[Asked]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)
