"""Areas of the surface elements that the normalized surface distance weighs (FLARE evaluation).

A surface element ("surfel") is what marching cubes cuts through a cube of 2x2x2 voxel centers.
There are 256 such cubes. The official figures depend on how ambiguous faces and outlines that are
not flat are resolved; three rules reproduce them for every cube and spacing:

1. a cube and its complement have the same surface, so at most four corners are ever cut off;
2. on a face where two opposite corners are cut off, each is cut off by itself;
3. of all triangulations of an outline the one with the largest area on a unit cube is taken.
"""

from collections.abc import Iterator
from functools import cache
from itertools import product

import numpy as np
import numpy.typing as npt

from cfseg.geometry import Triple, TripleMm

CORNERS: tuple[Triple, ...] = tuple((i, j, k) for i, j, k in product((0, 1), repeat=3))
"""Corner ``b`` of a cube is bit ``b`` of its code."""

_Segment = tuple[Triple, Triple]
_Triangles = list[Triple]
_Vectors = npt.NDArray[np.float64]


def surfel_areas(spacing_mm: TripleMm) -> npt.NDArray[np.float64]:
    """Return the area in mm^2 of the surface inside each cube, (256,) indexed by its code.

    Args:
        spacing_mm: along the three axes, in the order of the arrays that the codes come from.
    """
    codes, vectors = _area_vectors()
    a, b, c = spacing_mm
    norms = np.linalg.norm(vectors * np.array([b * c, a * c, a * b]), axis=1)
    areas_mm2 = np.zeros(256)
    np.add.at(areas_mm2, codes, norms)
    return areas_mm2


@cache
def _area_vectors() -> tuple[npt.NDArray[np.intp], _Vectors]:
    """Return the area vector of each triangle on a unit cube, and the code it belongs to."""
    codes: list[int] = []
    vectors: list[_Vectors] = []
    for code in range(256):
        cut = code if code.bit_count() <= 4 else 255 - code
        for outline in _outlines(frozenset(c for b, c in enumerate(CORNERS) if cut >> b & 1)):
            for vector in _widest(outline):
                codes.append(code)
                vectors.append(vector)
    return np.array(codes, dtype=np.intp), np.array(vectors)


def _outlines(cut: frozenset[Triple]) -> list[list[Triple]]:
    """Return the closed outlines around the corners cut off.

    The points are middles of edges, in half units so that they are whole numbers.
    """
    beside: dict[Triple, list[Triple]] = {}
    for axis, side in product(range(3), (0, 1)):
        for a, b in _face_segments(cut, axis, side):
            beside.setdefault(a, []).append(b)
            beside.setdefault(b, []).append(a)
    outlines = []
    while beside:
        point = min(beside)
        outline = []
        while point in beside:
            outline.append(point)
            one, other = beside.pop(point)
            point = one if one in beside else other
        outlines.append(outline)
    return outlines


def _face_segments(cut: frozenset[Triple], axis: int, side: int) -> list[_Segment]:
    ring = [_on_face(axis, side, u, v) for u, v in ((0, 0), (0, 1), (1, 1), (1, 0))]
    middles = [_sum(ring[i - 1], ring[i]) for i in range(4)]
    crossed = [i for i in range(4) if (ring[i - 1] in cut) != (ring[i] in cut)]
    if len(crossed) == 2:
        return [(middles[crossed[0]], middles[crossed[1]])]
    if len(crossed) == 4:
        return [(middles[i], middles[(i + 1) % 4]) for i in range(4) if ring[i] in cut]
    return []


def _on_face(axis: int, side: int, u: int, v: int) -> Triple:
    corner = [u, v]
    corner.insert(axis, side)
    return corner[0], corner[1], corner[2]


def _sum(a: Triple, b: Triple) -> Triple:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


def _widest(outline: list[Triple]) -> _Vectors:
    """Return the area vectors (n, 3) of the triangulation with the largest area."""
    points = np.array(outline, dtype=np.float64) / 2
    best: _Vectors = np.zeros((0, 3))
    for triangles in _triangulations(0, len(outline) - 1):
        a, b, c = (points[list(corner)] for corner in zip(*triangles, strict=True))
        vectors = np.cross(b - a, c - a) / 2
        if np.linalg.norm(vectors, axis=1).sum() > np.linalg.norm(best, axis=1).sum() + 1e-9:
            best = vectors
    return best


def _triangulations(first: int, last: int) -> Iterator[_Triangles]:
    """Yield every way to cut the polygon of the points ``first..last`` into triangles."""
    if last - first < 2:
        yield []
        return
    for apex in range(first + 1, last):
        for left in _triangulations(first, apex):
            for right in _triangulations(apex, last):
                yield [*left, *right, (first, apex, last)]
