"""What the scanner adds: blur, slice profile, correlated noise, streaks, shading, field of view."""

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from cfseg.geometry import TripleMm
from cfseg.phantoms.shapes import Float, smooth_noise

AIR_HU, MAX_HU = -1024, 3071


def acquire(rng: np.random.Generator, image: Float, mm: TripleMm) -> np.ndarray:
    """Return the (Z, Y, X) int16 scan of a HU image on the same grid.

    Args:
        rng: the case's generator.
        image: HU before acquisition.
        mm: spacing of the grid, (z, y, x).
    """
    blur_mm = rng.uniform(0.9, 1.5)
    seen = gaussian_filter(image, [max(0.25, 0.3), blur_mm / mm[1] * 0.9, blur_mm / mm[2] * 0.9])
    body = seen > -300
    seen += _noise(rng, seen, mm)
    seen += _shading(rng, seen, mm, body)
    if rng.random() < 0.3:
        _field_of_view(rng, seen)
    return np.clip(np.rint(seen), AIR_HU, MAX_HU).astype(np.int16)


def _noise(rng: np.random.Generator, seen: Float, mm: TripleMm) -> Float:
    """Noise, correlated in plane, stronger in thick patients and in the middle of the body."""
    amount = float(np.clip(rng.lognormal(np.log(11), 0.42), 4, 28))
    noise = rng.standard_normal(seen.shape).astype(np.float32)
    size = rng.uniform(0.35, 0.6) * min(1.0, 2.0 / mm[2])
    noise = gaussian_filter(noise, [0, size, size])
    noise *= amount / max(float(noise.std()), 1e-6)
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in seen.shape[1:])
    noise *= 1.2 - 0.5 * np.minimum(1, np.hypot(y[:, None], x[None, :]))
    if rng.random() < 0.25:  # photon starvation: bands along the wide axis of the patient
        bands = rng.standard_normal(seen.shape).astype(np.float32)
        bands = gaussian_filter1d(bands, 12, axis=2)
        noise += rng.uniform(2, 8) * bands / max(float(bands.std()), 1e-6)
    return noise


def _shading(rng: np.random.Generator, seen: Float, mm: TripleMm, body: np.ndarray) -> Float:
    slow = smooth_noise(rng, (seen.shape[0], seen.shape[1], seen.shape[2]), 120, mm)
    return np.where(body, np.float32(rng.uniform(0, 4)) * slow, 0).astype(np.float32)


def _field_of_view(rng: np.random.Generator, seen: Float) -> None:
    """Blank what lies outside of the reconstruction circle."""
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in seen.shape[1:])
    radius = rng.uniform(1.0, 1.15)
    seen[:, np.hypot(y[:, None], x[None, :]) > radius] = AIR_HU
