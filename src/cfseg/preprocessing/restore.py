"""A network's logits become a label map on the CT's own grid.

Logits come plane by plane, and the labels of a plane are found as soon as the logits around it are
there: classes are compared one by one in slabs of a few planes. Never do all classes lie on the
CT's grid, and of the logits no more is held than the last plane.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)

from cfseg.plan import StagePlan
from cfseg.preprocessing.prepare import Prepared, slab_planes, spacing, transposed
from cfseg.preprocessing.resample import (
    along,
    axis_matrix,
    corner_matrix,
    resample,
    separate_axis,
)
from cfseg.volume import LabelMap


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
            matrix = self._matrix()
            self.matrix = matrix.to(self.ids.device)
            self.same_planes = matrix.shape[0] == matrix.shape[1] and bool(
                torch.equal(matrix, torch.eye(len(matrix)))
            )
            reach = [row.nonzero() for row in matrix]
            self.needs = [(int(r.min()), int(r.max()) + 1) for r in reach]

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
                first = self.needs[self.made][0] if self.made < len(self.needs) else self.come
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

    def _matrix(self) -> torch.Tensor:
        rule = self.plan.resampling
        if rule.method == "trilinear":
            return corner_matrix(self.shape[0], self.count)
        return axis_matrix(self.shape[0], self.count, self._order(0))

    def _order(self, axis: int) -> int:
        rule = self.plan.resampling
        return rule.logits_order_z if axis == self.axis else rule.logits_order

    def _restore(self, pieces: list[torch.Tensor]) -> None:
        """Find the labels of all planes whose logits are there."""
        ready = self.made
        while ready < len(self.needs) and self.needs[ready][1] <= self.come:
            ready += 1
        first = self.come - sum(piece.shape[1] for piece in pieces)
        some = slab_planes(self.shape)
        for start in range(self.made, ready, some):
            stop = min(start + some, ready)
            below, above = self.needs[start][0], self.needs[stop - 1][1]
            source = _cut(pieces, below - first, above - first)
            self.ids[start:stop] = self._winners(source, self.matrix[start:stop, below:above])
        self.made = ready

    def _winners(self, source: list[torch.Tensor], weights: torch.Tensor) -> torch.Tensor:
        classes = range(len(self.plan.labels))
        return winners((self._class(source, weights, c) for c in classes), self.plan.labels)

    def _class(
        self, source: list[torch.Tensor], weights: torch.Tensor, number: int
    ) -> torch.Tensor:
        """Return one class on planes (n, Y, X) of the volume's grid."""
        here = [piece[number].float().flatten(1) for piece in source]
        flat = here[0] if len(here) == 1 else torch.cat(here)
        between = flat if self.same_planes else weights @ flat
        planes = between.view(-1, *source[0].shape[2:])
        size = self.shape[1:]
        if tuple(planes.shape[1:]) == size:
            return planes
        corners = self.plan.resampling.method == "trilinear"
        if corners or (self._order(1), self._order(2)) == (1, 1):
            batch = planes[None]
            return F.interpolate(batch, size=size, mode="bilinear", align_corners=corners)[0]
        for axis in (1, 2):
            planes = along(planes, axis, self.shape[axis], self._order(axis))
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
        # A later class has the larger number, so the larger one is the one that won last.
        won = (logit > best).view(torch.uint8).mul_(number)
        torch.maximum(classes, won, out=classes)
        torch.maximum(best, logit, out=best)
    if labels == tuple(range(len(labels))):
        return classes
    return torch.tensor(labels, dtype=torch.uint8, device=best.device)[classes.int()]


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
