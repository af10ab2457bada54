"""Shapes in millimetres, painted on a warped grid.

The anatomical frame has its origin at the spine's midline, at the anterior edge of the vertebrae
and the mean upper pole of the kidneys; x grows to the patient's right, y to the front, z upwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.interpolate import make_interp_spline
from scipy.ndimage import gaussian_filter, zoom
from scipy.spatial import cKDTree

from cfseg.geometry import Triple, TripleMm

Float = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Point = Sequence[float] | npt.NDArray[np.float64]
"""(x, y, z) in mm."""
Curve = Sequence[Point]
"""Points along a line, in mm."""
REACH_MM = 14.0
"""How far the warp can move a point; a shape is looked for that much around its own box."""


@dataclass(frozen=True)
class Frame:
    """The anatomical coordinates of every voxel.

    Attributes:
        x, y, z: (Z, Y, X) float32, mm in the anatomical frame.
        spacing_mm: of the grid, (z, y, x).
        scale: anatomical mm per grid mm along (z, y, x), for looking up boxes.
        origin: grid position in mm (z, y, x) of the anatomical origin.
    """

    x: Float
    y: Float
    z: Float
    spacing_mm: TripleMm
    scale: TripleMm
    origin: TripleMm

    @property
    def shape(self) -> Triple:
        """Voxels along (z, y, x)."""
        z, y, x = self.x.shape
        return z, y, x

    def window(self, low: Point, high: Point) -> tuple[slice, slice, slice]:
        """Return the slices that surely hold all points between ``low`` and ``high`` (x, y, z)."""
        found = []
        # Array axes run z up, y back, x left: y and x against the anatomical frame.
        for axis, (index, sign) in enumerate(((2, 1), (1, -1), (0, -1))):
            ends = sorted(sign * v for v in (low[index], high[index]))
            a, b = ((v / self.scale[axis]) + self.origin[axis] for v in ends)
            start = int((a - REACH_MM) / self.spacing_mm[axis])
            stop = int((b + REACH_MM) / self.spacing_mm[axis]) + 2
            size = self.shape[axis]
            found.append(slice(min(max(start, 0), size), min(max(stop, 0), size)))
        return found[0], found[1], found[2]

    def points(self, window: tuple[slice, slice, slice]) -> Float:
        """Return the (..., 3) coordinates (x, y, z) of the voxels of a window."""
        return np.stack([self.x[window], self.y[window], self.z[window]], axis=-1)


@dataclass(frozen=True)
class Field:
    """A scalar on a window of the grid; small inside of a shape, 1 at its nominal surface."""

    window: tuple[slice, slice, slice]
    values: Float

    def mask(self, shape: Triple, level: float = 1.0) -> Mask:
        """Return where the field is below ``level``, on the whole grid."""
        whole = np.zeros(shape, dtype=bool)
        whole[self.window] = self.values < level
        return whole

    def level_of(self, volume_ml: float, voxel_ml: float, low: float = 0.5) -> float:
        """Return the level that encloses ``volume_ml``, between ``low`` and 1.6."""
        flat = self.values.ravel()
        rank = min(int(volume_ml / voxel_ml), flat.size - 1)
        if rank < 1:
            return low
        return float(np.clip(np.partition(flat, rank)[rank], low, 1.6))


def smooth_noise(rng: np.random.Generator, shape: Triple, size_mm: float, mm: TripleMm) -> Float:
    """Return (Z, Y, X) noise of unit variance whose structures are about ``size_mm`` large."""
    coarse = [max(4, round(n * s / size_mm) + 3) for n, s in zip(shape, mm, strict=True)]
    small = rng.standard_normal(coarse).astype(np.float32)
    factors = [n / c for n, c in zip(shape, coarse, strict=True)]
    noise: Float = zoom(small, factors, order=2, mode="nearest", grid_mode=True)
    return noise[: shape[0], : shape[1], : shape[2]] / max(float(noise.std()), 1e-6)


def texture(rng: np.random.Generator, shape: Triple, size_mm: float, mm: TripleMm) -> Float:
    """Return fine (Z, Y, X) noise of unit variance, smooth over about ``size_mm``."""
    noise = rng.standard_normal(shape).astype(np.float32)
    smooth: Float = gaussian_filter(noise, [size_mm / 2.4 / s for s in mm])
    return smooth / max(float(smooth.std()), 1e-6)


def basis(direction: Point, rng: np.random.Generator | None = None) -> npt.NDArray[np.float64]:
    """Return a rotation whose first row is ``direction``; the others are as upright as can be."""
    first = np.asarray(direction, dtype=float)
    if rng is not None:
        first = first / np.linalg.norm(first) + rng.normal(0, 0.06, 3)
    first = first / np.linalg.norm(first)
    helper = np.array([0.0, 1.0, 0.0]) if abs(first[1]) < 0.9 else np.array([0.0, 0.0, 1.0])
    second = helper - first * (helper @ first)
    second /= np.linalg.norm(second)
    return np.stack([first, second, np.cross(first, second)])


def ellipsoid(
    frame: Frame,
    center: Point,
    radii: Point,
    rotation: npt.NDArray[np.float64] | None = None,
    power: float = 2.0,
) -> Field:
    """Return the field of a superellipsoid with these radii along the rows of ``rotation``."""
    reach = 1.6 * max(radii)
    window = frame.window([c - reach for c in center], [c + reach for c in center])
    local = frame.points(window) - np.asarray(center, dtype=np.float32)
    if rotation is not None:
        local = local @ rotation.T.astype(np.float32)
    scaled = np.abs(local / np.asarray(radii, dtype=np.float32)) ** power
    return Field(window, scaled.sum(axis=-1) ** np.float32(1 / power))


def tube(frame: Frame, points: Curve, radii: Sequence[float]) -> Field:
    """Return the field of a tube around a smooth curve through ``points``; 1 is its wall."""
    knots = np.asarray(points, dtype=float)
    t = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(knots, axis=0), axis=1))])
    fine = np.linspace(0, t[-1], max(8, int(t[-1] / 2.5)))
    curve = make_interp_spline(t, knots, k=min(3, len(knots) - 1))(fine)
    radius = np.interp(fine, np.linspace(0, t[-1], len(radii)), radii)
    reach = 1.6 * float(radius.max())
    window = frame.window(curve.min(axis=0) - reach, curve.max(axis=0) + reach)
    where = frame.points(window)
    far = 1.6 * reach
    distance, nearest = cKDTree(curve).query(where.reshape(-1, 3), distance_upper_bound=far)
    radius = np.append(radius, 1.0)
    values = np.where(np.isfinite(distance), distance / radius[nearest], 99.0)
    return Field(window, values.reshape(where.shape[:3]).astype(np.float32))


def either(fields: Sequence[Field]) -> Field:
    """Return the field of the union of several shapes."""
    starts = [min(f.window[axis].start for f in fields) for axis in range(3)]
    stops = [max(f.window[axis].stop for f in fields) for axis in range(3)]
    z, y, x = (slice(a, b) for a, b in zip(starts, stops, strict=True))
    values = np.full([b - a for a, b in zip(starts, stops, strict=True)], 99.0, dtype=np.float32)
    for f in fields:
        inner = tuple(slice(w.start - a, w.stop - a) for w, a in zip(f.window, starts, strict=True))
        values[inner] = np.minimum(values[inner], f.values)
    return Field((z, y, x), values)
