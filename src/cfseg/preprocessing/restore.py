"""A network's logits become a label map on the CT's own grid.

Logits come plane by plane, and the labels of a plane are found as soon as the logits around it are
there: classes are compared one by one in slabs of a few planes. Never do all classes lie on the
CT's grid, and of the logits no more is held than the last plane (splines need the whole).

Linear interpolation takes means, with weights that no class changes: a class that nowhere around a
voxel exceeds the first one, the background, does not win there. So on a CPU a class is brought to
the CT's grid within the box only where it exceeds the background. (A GPU would have to wait for
the boxes, and has the bandwidth to do without.)
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)

from cfseg.plan import StagePlan
from cfseg.preprocessing.prepare import Prepared, slab_planes, spacing, transposed
from cfseg.preprocessing.resample import (
    axis_matrix,
    corner_matrix,
    resample,
    separate_axis,
)
from cfseg.volume import LabelMap

LARGE = 4
"""A part of a plane larger than 1 / LARGE of it: interpolating the whole plane is faster."""


def restore_labels(logits: torch.Tensor | npt.NDArray[np.float32], prepared: Prepared) -> LabelMap:
    """Bring logits back to the volume's grid and take the best class of each voxel.

    Args:
        logits: (C, Z, Y, X) on the network's grid.
        prepared: what the logits were computed from.

    Returns:
        FLARE labels on the grid of the volume.

    Raises:
        ValueError: the logits do not lie on the grid of ``prepared``.
    """
    planes = torch.as_tensor(logits)
    restoration = Restoration(prepared)
    restoration.add(planes)
    return restoration.label_map()


def goes_by_planes(plan: StagePlan) -> bool:
    """Say whether labels can be found plane by plane; splines overshoot and need the whole."""
    rule = plan.resampling
    return rule.method == "trilinear" or max(rule.logits_order, rule.logits_order_z) <= 1


class Restoration:
    """Takes the logits of a prepared volume plane by plane and makes its label map.

    Args:
        prepared: what the logits are computed from.
    """

    def __init__(self, prepared: Prepared) -> None:
        self.prepared, self.plan = prepared, prepared.plan
        self.shape = transposed(prepared.geometry.shape, self.plan)
        self.count = prepared.image.shape[0]
        self.ids = torch.empty(self.shape, dtype=torch.uint8, device=prepared.image.device)
        self.by_planes = goes_by_planes(self.plan)
        self.held: torch.Tensor | None = None
        self.come = 0
        self.made = 0
        rule, geometry = self.plan.resampling, prepared.geometry
        self.axis = separate_axis(self.plan.spacing_mm, spacing(geometry, self.plan), rule)
        if self.by_planes:
            z, y, x = (self._axis(axis) for axis in range(3))
            self.axes = (z, y, x)

    def add(self, planes: torch.Tensor) -> None:
        """Take the next planes of logits, (C, n, Y, X) of any precision; they are not kept.

        Raises:
            ValueError: they do not lie on the prepared volume's grid.
        """
        expected = (len(self.plan.labels), *self.prepared.image.shape[1:])
        here = (planes.shape[0], *planes.shape[2:])
        if here != expected or self.come + planes.shape[1] > self.count:
            raise ValueError(
                f"logits of shape {tuple(planes.shape)}, expected {(expected[0], self.count)} "
                f"and {expected[1:]}"
            )
        with torch.inference_mode():
            self.come += planes.shape[1]
            pieces = [planes] if self.held is None else [self.held, planes]
            if self.by_planes:
                self._restore(pieces)
                z = self.axes[0]
                first = z.lowest[self.made] if self.made < len(z) else self.come
                self.held = _tail(pieces, self.come - first)
            else:
                self.held = torch.cat([piece.float() for piece in pieces], dim=1)

    def label_map(self) -> LabelMap:
        """Return the label map on the volume's grid.

        Raises:
            ValueError: planes are missing.
        """
        if self.come != self.count:
            raise ValueError(f"{self.come} of {self.count} planes of logits came")
        if self.held is not None and not self.by_planes:
            with torch.inference_mode():
                self.ids.copy_(self._winners_of_whole(self.held))
        back = np.argsort(self.plan.transpose)
        ids = np.ascontiguousarray(self.ids.cpu().numpy().transpose(back))
        return LabelMap(ids, self.prepared.geometry)

    def _axis(self, axis: int) -> "_Axis":
        after, before = self.shape[axis], self.prepared.image.shape[axis]
        if self.plan.resampling.method == "trilinear":
            matrix = corner_matrix(after, before)
        else:
            matrix = axis_matrix(after, before, self._order(axis))
        return _Axis.of(matrix, self.ids.device)

    def _order(self, axis: int) -> int:
        rule = self.plan.resampling
        return rule.logits_order_z if axis == self.axis else rule.logits_order

    def _restore(self, pieces: list[torch.Tensor]) -> None:
        """Find the labels of all planes whose logits are there."""
        z = self.axes[0]
        ready = int(np.searchsorted(z.highest, self.come, side="right"))
        first = self.come - sum(piece.shape[1] for piece in pieces)
        some = slab_planes(self.shape)
        for start in range(self.made, ready, some):
            stop = min(start + some, ready)
            below, above = z.needed(start, stop)
            source = _cut(pieces, below - first, above - first)
            self.ids[start:stop] = self._winners(source, z.matrix[start:stop, below:above])
        self.made = ready

    def _winners(self, source: list[torch.Tensor], weights: torch.Tensor) -> torch.Tensor:
        """Return the labels of planes, uint8 (n, Y, X), from the logits that they need."""
        _, y, x = self.axes
        everywhere = (slice(0, len(y)), slice(0, len(x)))
        best = self._class(source, weights, 0, *everywhere).clone()
        classes = torch.zeros(best.shape, dtype=torch.uint8, device=best.device)
        for number, box in enumerate(self._boxes(source), start=1):
            if box is None:
                continue
            here = slice(*y.reached(*box[0])), slice(*x.reached(*box[1]))
            size = max(0, here[0].stop - here[0].start) * max(0, here[1].stop - here[1].start)
            if size == 0:
                continue
            if LARGE * size > len(y) * len(x):
                here = everywhere
            logit = self._class(source, weights, number, *here)
            _let_win(best[:, *here], classes[:, *here], logit, number)
        return _labels(classes, self.plan.labels)

    def _boxes(self, source: list[torch.Tensor]) -> "list[_Sides | None]":
        """Return where each class but the first exceeds the first in any plane; None: nowhere."""
        count = len(self.plan.labels) - 1
        if self.ids.device.type != "cpu":
            rows, columns = self.prepared.image.shape[1:]
            return [((0, rows), (0, columns))] * count
        exceeds = [(piece[1:] > piece[:1]).view(torch.uint8).amax(dim=1) for piece in source]
        flat = exceeds[0] if len(exceeds) == 1 else torch.maximum(*exceeds)
        sides = [_ends(flat.amax(dim=axis).numpy()) for axis in (2, 1)]
        return [None if r is None or c is None else (r, c) for r, c in zip(*sides, strict=True)]

    def _class(
        self,
        source: list[torch.Tensor],
        weights: torch.Tensor,
        number: int,
        rows: slice,
        columns: slice,
    ) -> torch.Tensor:
        """Return one class on planes (n, Y, X) of the volume's grid, or on a part of them."""
        z, y, x = self.axes
        size = (rows.stop - rows.start, columns.stop - columns.start)
        corners = self.plan.resampling.method == "trilinear"
        linear = corners or (self._order(1), self._order(2)) == (1, 1)
        by_torch = linear and size == self.shape[1:] and not (y.same and x.same)
        if by_torch:  # it needs voxels at the rim too of which nothing is made
            (top, bottom), (left, right) = (0, y.matrix.shape[1]), (0, x.matrix.shape[1])
        else:
            (top, bottom), (left, right) = (
                axis.needed(part.start, part.stop) for axis, part in ((y, rows), (x, columns))
            )
        here = [piece[number, :, top:bottom, left:right].float() for piece in source]
        planes = here[0] if len(here) == 1 else torch.cat(here)
        if not z.same:
            planes = (weights @ planes.flatten(1)).view(-1, *planes.shape[1:])
        if by_torch:
            batch = planes[None]
            return F.interpolate(batch, size=size, mode="bilinear", align_corners=corners)[0]
        if not x.same:
            planes = planes @ x.matrix[columns, left:right].T
        if not y.same:
            planes = torch.bmm(y.matrix[rows, top:bottom].expand(len(planes), -1, -1), planes)
        return planes

    def _winners_of_whole(self, logits: torch.Tensor) -> torch.Tensor:
        rule, axis = self.plan.resampling, self.axis
        orders = (rule.logits_order, rule.logits_order_z)
        whole = (resample(c.contiguous(), self.shape, *orders, axis) for c in logits)
        return winners(whole, self.plan.labels)


def winners(candidates: Iterator[torch.Tensor], labels: tuple[int, ...]) -> torch.Tensor:
    """Return the label of the class with the largest logit; the first of equals, as argmax.

    Args:
        candidates: the logits of each class, of one shape, all float32.
        labels: one for each.

    Returns:
        uint8 of the logits' shape.
    """
    best = next(candidates).clone()
    classes = torch.zeros(best.shape, dtype=torch.uint8, device=best.device)
    for number, logit in zip(range(1, len(labels)), candidates, strict=True):
        _let_win(best, classes, logit, number)
    return _labels(classes, labels)


def _let_win(best: torch.Tensor, classes: torch.Tensor, logit: torch.Tensor, number: int) -> None:
    """Write into ``best`` and ``classes`` where the next class wins over those before."""
    # A later class has the larger number, so the larger one is the one that won last.
    won = (logit > best).view(torch.uint8).mul_(number)
    torch.maximum(classes, won, out=classes)
    torch.maximum(best, logit, out=best)


def _labels(classes: torch.Tensor, labels: tuple[int, ...]) -> torch.Tensor:
    if labels == tuple(range(len(labels))):
        return classes
    return torch.tensor(labels, dtype=torch.uint8, device=classes.device)[classes.int()]


def _ends(flags: npt.NDArray[np.uint8]) -> "list[_Ends | None]":
    """Return of each row of flags the first that is set and the last plus 1, or None."""
    first, stop = flags.argmax(axis=1), flags.shape[1] - flags[:, ::-1].argmax(axis=1)
    ends = zip(first.tolist(), stop.tolist(), flags.max(axis=1).tolist(), strict=True)
    return [(a, b) if some else None for a, b, some in ends]


_Ends = tuple[int, int]
_Sides = tuple[_Ends, _Ends]
"""From where to where along y and along x."""


@dataclass(frozen=True)
class _Axis:
    """The linear operator of one axis.

    Attributes:
        matrix: (after, before).
        same: nothing changes.
        lowest: of each voxel after, the first before that it is made of.
        highest: the last one, plus 1.
    """

    matrix: torch.Tensor
    same: bool
    lowest: npt.NDArray[np.int64]
    highest: npt.NDArray[np.int64]

    @classmethod
    def of(cls, matrix: torch.Tensor, device: torch.device) -> "_Axis":
        used = matrix.numpy() != 0
        highest = used.shape[1] - used[:, ::-1].argmax(axis=1)
        same = used.shape[0] == used.shape[1] and torch.equal(matrix, torch.eye(len(matrix)))
        return cls(matrix.to(device), same, used.argmax(axis=1), highest)

    def __len__(self) -> int:
        return len(self.lowest)

    def needed(self, start: int, stop: int) -> _Ends:
        """Return the voxels before that voxels ``start`` to ``stop`` after are made of."""
        return int(self.lowest[start]), int(self.highest[stop - 1])

    def reached(self, start: int, stop: int) -> _Ends:
        """Return the voxels after that voxels ``start`` to ``stop`` before have a part in."""
        first = np.searchsorted(self.highest, start, side="right")
        return int(first), int(np.searchsorted(self.lowest, stop, side="left"))


def _cut(pieces: list[torch.Tensor], start: int, stop: int) -> list[torch.Tensor]:
    """Return planes ``start`` to ``stop`` of pieces that follow each other."""
    found, offset = [], 0
    for piece in pieces:
        a, b = max(0, start - offset), min(piece.shape[1], stop - offset)
        if a < b:
            found.append(piece[:, a:b])
        offset += piece.shape[1]
    return found


def _tail(pieces: list[torch.Tensor], planes: int) -> torch.Tensor | None:
    """Return a copy of the last planes of pieces that follow each other."""
    total = sum(piece.shape[1] for piece in pieces)
    tail = _cut(pieces, total - planes, total)
    return torch.cat(tail, dim=1) if tail else None
