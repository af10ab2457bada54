"""Tumors and harmless findings painted into a rendered crop, by the tables of the phantoms."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from cfseg.feed.rendering.scene import Scene, softened
from cfseg.geometry import Triple
from cfseg.labels import IGNORE, TUMOR
from cfseg.phantoms.lesions import DISTRACTORS, KINDS, Kind, replaceable, tumor_hu

LEAST_ML = 0.2
"""A smaller tumor is none that anybody could find."""
_REACH = 1.4
_DISTRACTORS = np.array([one.chance for one in DISTRACTORS])
_SHARES = np.array([kind.share for kind in KINDS.values()])


@dataclass(frozen=True)
class Findings:
    """What is painted into a crop.

    Attributes:
        kind: of tumor; empty for none.
        host: tissue that the first one grows from; 0 for none.
        distractors: how many harmless findings.
        central: the first tumor lies in the middle of the crop.
    """

    kind: str = ""
    host: int = 0
    distractors: int = 0
    central: bool = False

    @classmethod
    def sample(
        cls, rng: np.random.Generator, tumor: float, distractor: float, both: float, focus: float
    ) -> "Findings":
        """Draw them.

        Args:
            rng: numbers are drawn from it.
            tumor: probability of tumors.
            distractor: probability of distractors alone.
            both: probability of distractors beside tumors.
            focus: share of the crops with a tumor that have it in the middle.
        """
        drawn, count = rng.random(), int(rng.integers(1, 5))
        if drawn >= tumor:
            return cls(distractors=count if drawn < tumor + distractor else 0)
        kind = str(rng.choice(list(KINDS), p=_SHARES / _SHARES.sum()))
        host = int(rng.choice(KINDS[kind].hosts))
        beside = count if rng.random() < both else 0
        return cls(kind, host, beside, bool(rng.random() < focus))


def paint(scene: Scene, image: torch.Tensor, findings: Findings) -> None:
    """Paint findings into the image and tumors into the labels.

    A kind whose host is not in the crop gives way to another.
    """
    for _ in range(findings.distractors):
        _distract(scene, image)
    name, host, central = findings.kind, findings.host, findings.central
    if not name or _tumors(scene, image, name, host, central):
        return
    if there := [name for name, kind in KINDS.items() if scene.has(*kind.hosts)]:
        name = str(scene.rng.choice(there))
        host = int(scene.rng.choice([host for host in KINDS[name].hosts if scene.has(host)]))
        _tumors(scene, image, name, host, central)


def _tumors(scene: Scene, image: torch.Tensor, name: str, host: int, central: bool) -> int:
    """Paint tumors of a kind and return how many; the first from a host, central if asked to."""
    rng, kind = scene.rng, KINDS[name]
    wanted = int(rng.integers(1, kind.many + 1))
    hu, found = rng.uniform(*kind.hu), 0
    for attempt in range(wanted + scene.ranges.lesion_tries):
        shape = _grow(scene, kind, host, central and attempt == 0)
        if shape is not None:
            window, values = shape
            mean = tumor_hu(rng, name, hu, host, scene.look)
            _fill(scene, kind, image[window], values, mean)
            scene.labels[window].masked_fill_(values < 1, TUMOR.id)
            found += 1
        if found == wanted:
            break
        host = int(rng.choice(kind.hosts))
    return found


def _grow(
    scene: Scene, kind: Kind, host: int, central: bool
) -> tuple[tuple[slice, slice, slice], torch.Tensor] | None:
    """Return where a tumor is and its field, below 1 inside; None where there is no room."""
    rng = scene.rng
    center = _voxel(scene, host, central)
    diameter = kind.diameter(rng)
    if center is None:
        return None
    radii = diameter / 2 * rng.uniform(0.8, 1.2, 3)
    if kind.exophytic and rng.random() < 0.65:
        out = rng.normal(0, 1, 3)
        center = center + out / np.linalg.norm(out) * kind.exophytic * diameter / 2 / scene.mm
    window, values = _ellipsoid(scene, center, radii)
    if not values.numel():
        return None
    for size_mm, strength in ((diameter / 1.6, (0.1, 0.25)), (diameter / 4, (0.03, 0.1))):
        bumps = scene.smooth(max(8.0, size_mm), _shape(values))
        values.add_(bumps, alpha=scene.within(strength))
    here = scene.tissue[window]
    room = scene.labels[window] != IGNORE
    room &= torch.isin(here, torch.tensor(replaceable(host), device=here.device))
    values = values.masked_fill(~room, 99)
    least = max(4, LEAST_ML * 1000 / float(np.prod(scene.mm)))
    return (window, values) if int((values < 1).sum()) >= least else None


def _fill(scene: Scene, kind: Kind, image: torch.Tensor, values: torch.Tensor, hu: float) -> None:
    """Blend a tumor's own texture, rim and core into the image, soft at the edge."""
    inner = scene.smooth(12, _shape(values)).mul_(scene.within((3.0, 9.0))).add_(hu)
    if scene.sometimes(0.4):
        inner += scene.within((8.0, 28.0)) * (values > 0.8)
    if scene.sometimes(kind.core):
        core = max(4.0, hu - scene.within((15.0, 50.0)))
        inner.masked_fill_(values < scene.within((0.35, 0.65)), core)
    weight = softened((values < 1).to(torch.float32), [kind.edge_mm / 2 / mm for mm in scene.mm])
    image += weight * (inner - image)


def _distract(scene: Scene, image: torch.Tensor) -> None:
    rng = scene.rng
    one = DISTRACTORS[int(rng.choice(len(DISTRACTORS), p=_DISTRACTORS / _DISTRACTORS.sum()))]
    hu, radius = one.level(rng, scene.look), rng.uniform(*one.diameter_mm) / 2
    radii = radius * rng.uniform(0.85, 1.15, 3)
    center = _voxel(scene, one.host, central=False)
    if center is not None:
        window, values = _ellipsoid(scene, center, radii)
        inside = (values < 1) & (scene.tissue[window] == one.host)
        image[window].masked_fill_(inside, hu)


def _voxel(scene: Scene, host: int, central: bool) -> np.ndarray | None:
    """Draw a known voxel of a tissue, (z, y, x); None if there are few."""
    if not scene.has(host):
        return None
    known = scene.of(host) & (scene.labels != IGNORE)
    margin = [side // 4 if central else 0 for side in scene.shape]
    middle = tuple(slice(m, side - m) for m, side in zip(margin, scene.shape, strict=True))
    places = torch.nonzero(known[middle])
    if len(places) < 8:
        return None
    at: np.ndarray = places[int(scene.rng.integers(len(places)))].cpu().numpy() + np.array(margin)
    return at


def _ellipsoid(
    scene: Scene, center: np.ndarray, radii_mm: np.ndarray
) -> tuple[tuple[slice, slice, slice], torch.Tensor]:
    """Return a box and, on it, the distance from a center in radii of a turned ellipsoid."""
    reach = _REACH * radii_mm.max() / np.array(scene.mm)
    low = np.clip(np.floor(center - reach), 0, scene.shape).astype(int)
    high = np.clip(np.ceil(center + reach) + 1, 0, scene.shape).astype(int)
    z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    matrix = Rotation.from_quat(scene.rng.normal(size=4)).as_matrix() * scene.mm / radii_mm[:, None]
    square = torch.zeros([b.stop - b.start for b in (z, y, x)], device=scene.device)
    for row in matrix:
        lines = [
            (torch.arange(box.start, box.stop, device=scene.device) - at) * factor
            for box, at, factor in zip((z, y, x), center.tolist(), row.tolist(), strict=True)
        ]
        along = lines[0][:, None, None] + lines[1][:, None] + lines[2]
        square += along.square_()
    return (z, y, x), square.sqrt_()


def _shape(values: torch.Tensor) -> Triple:
    z, y, x = values.shape
    return z, y, x
