"""A limit on memory: held before each stage against the plan of what it will take.

A budget gives up first that the last case is written meanwhile, then the networks that are not
needed, then the precision of the sums, and refuses what does not fit even so. What was planned and
what was used stand beside each other in the result.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import torch

from cfseg.errors import ResourceError, UsageError
from cfseg.geometry import Geometry, Triple
from cfseg.inference.buffers import COPIES, Buffers, stage_buffers, weight_bytes
from cfseg.inference.predictor import Stage
from cfseg.inference.process_memory import give_back, peak_bytes, reset_peak, used_bytes
from cfseg.io.behind import WriteBehind
from cfseg.networks.backends import OnDemand
from cfseg.plan import StagePlan

MB = 1e6
WRITING = "writing the last case"
_SIZES = {"KB": 1e3, "MB": 1e6, "GB": 1e9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_size(text: str) -> int:
    """Return the bytes of a size such as ``3GB``, ``800MB`` or ``2.5GiB``.

    Raises:
        UsageError: it is no size.
    """
    word = text.strip().upper()
    unit = next((unit for unit in sorted(_SIZES, key=len, reverse=True) if word.endswith(unit)), "")
    try:
        size = float(word.removesuffix(unit)) * _SIZES[unit]
    except (KeyError, ValueError):
        size = 0.0
    if not 0 < size < 1e15:
        raise UsageError(f"--max-memory {text}: give a size such as 3GB or 800MB")
    return int(size)


def network_bytes(stage: Stage) -> int:
    """Return what loading a stage's network will take; 0 if it is loaded."""
    if not isinstance(stage.network, OnDemand) or stage.network.loaded:
        return 0
    return int(COPIES[stage.backend] * weight_bytes(stage.plan.architecture))


@dataclass
class Budget:
    """Holds a run within a limit.

    Attributes:
        limit: bytes that the process, or the GPU, may use in all; None for no limit.
        device: whose memory counts.
        asked: whether a user set the limit; then nothing is held beyond what the run needs.
        behind: writes the last case meanwhile, in the same memory.
        planned: the largest plan so far, in bytes, with what was in use before.
        buffers: of that plan.
        given_up: what was given up to stay within the limit.
    """

    limit: int | None
    device: torch.device
    asked: bool = True
    behind: WriteBehind | None = None
    planned: int = 0
    buffers: Buffers = field(default_factory=dict)
    given_up: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        reset_peak(self.device)

    def check_smallest(self, stages: Sequence[Stage]) -> None:
        """Refuse a run none of whose stages could ever fit: each on one window, alone.

        Raises:
            ResourceError: ``E_TOO_LARGE`` with the estimate.
        """
        for stage in stages:
            geometry = Geometry.from_spacing(
                _untransposed(stage.plan), stage.plan.original_spacing_mm
            )
            buffers = stage_buffers(stage.plan, geometry, stage.backend, half=True)
            buffers["network"] = network_bytes(stage)
            self.make_room(sum(buffers.values()))
            used = self._used(buffers, [other for other in stages if other is not stage])
            self._check(f"even a single window of stage {stage.name}", buffers, used)

    def check_reading(self, needed: float) -> None:
        """Refuse a scan that does not fit as it is; wait for writing the last one if it has to go.

        Args:
            needed: bytes that reading takes; infinite if that is unknown.

        Raises:
            ResourceError: ``E_TOO_LARGE`` with the estimate.
        """
        self.make_room(needed)
        if self.device.type == "cpu" and isfinite(needed):
            scan = {"scan": int(needed)}
            self._check("reading the scan", scan, self._used(scan, []))

    def make_room(self, needed: float) -> Buffers:
        """Return what writing the last case may still need; wait for its end if both do not fit.

        Args:
            needed: bytes that are wanted beside it.
        """
        if self.behind is None or self.device.type != "cpu":
            return {}
        held = self.behind.held_bytes
        if not held:
            return {}
        buffers = {WRITING: held}
        if not self._exceeds(used_bytes(self.device), buffers | {"needed": needed}):
            return buffers
        self.behind.wait()
        self._give_up("the last case is written before the next one runs")
        return {}

    def sums(
        self,
        stage: Stage,
        geometry: Geometry,
        others: Sequence[Stage],
        *,
        whole: int = 0,
        mirror: bool = False,
        remember: bool = False,
    ) -> torch.dtype:
        """Return the precision in which a stage can add up its windows.

        Args:
            stage: is about to run.
            geometry: grid of the volume that it will see.
            others: those whose networks can be let go for it.
            whole: see :func:`stage_buffers`.
            mirror: see :func:`stage_buffers`.
            remember: see :func:`stage_buffers`.

        Raises:
            ResourceError: ``E_TOO_LARGE`` with the estimate.
        """
        plans = {
            half: stage_buffers(
                stage.plan,
                geometry,
                stage.backend,
                half=half,
                whole=whole,
                mirror=mirror,
                remember=remember,
            )
            | {"network": network_bytes(stage)}
            for half in (False, True)
        }
        writing = self.make_room(sum(plans[False].values()))
        plans = {half: plan | writing for half, plan in plans.items()}
        used = self._used(plans[False], others)
        half = self._exceeds(used, plans[False])
        self._check(f"stage {stage.name}", plans[half], used)
        if half:
            self._give_up(f"{stage.name}: sums in half precision")
        if used + sum(plans[half].values()) > self.planned:
            self.planned = used + sum(plans[half].values())
            self.buffers = {"in use before": used} | plans[half]
        return torch.float16 if half else torch.float32

    def as_dict(self) -> dict[str, Any]:
        """Return limit, plan and what was used, in MB, for the status of a case."""
        return {
            "limit_mb": None if self.limit is None else round(self.limit / MB),
            "planned_mb": round(self.planned / MB),
            "used_mb": round(peak_bytes(self.device) / MB),
            "buffers_mb": {name: round(n / MB, 1) for name, n in self.buffers.items() if n},
            "given_up": self.given_up,
        }

    def _used(self, buffers: Buffers, others: Sequence[Stage]) -> int:
        """Return what is in use; if ``buffers`` do not fit beside it, give back what can be spared.

        Args:
            buffers: what is wanted beside it.
            others: those whose networks can be let go.
        """
        used = used_bytes(self.device)
        if self._exceeds(used, buffers):
            give_back(self.device)
            used = used_bytes(self.device)
        if self._exceeds(used, buffers) and _let_go(others):
            self._give_up("networks are loaded one at a time")
            give_back(self.device)
            used = used_bytes(self.device)
        return used

    def _exceeds(self, used: int, buffers: Mapping[str, float]) -> bool:
        return self.limit is not None and used + sum(buffers.values()) > self.limit

    def _give_up(self, what: str) -> None:
        if what not in self.given_up:
            self.given_up.append(what)

    def _check(self, what: str, buffers: Buffers, used: int) -> None:
        if not self._exceeds(used, buffers):
            return
        largest = sorted(buffers, key=lambda name: -buffers[name])[:3]
        shares = ", ".join(f"{name} {buffers[name] / MB:.0f}" for name in largest)
        need, limit = used + sum(buffers.values()), self.limit or 0
        raise ResourceError(
            f"{what} needs about {need / MB:.0f} MB ({used / MB:.0f} in use, "
            f"{shares}) and may have {limit / MB:.0f} MB; allow more with --max-memory, crop the "
            "scan, or use a bundle with smaller windows",
            code="E_TOO_LARGE",
        )


def _untransposed(plan: StagePlan) -> Triple:
    z, y, x = (plan.patch[plan.transpose.index(axis)] for axis in range(3))
    return z, y, x


def _let_go(stages: Sequence[Stage]) -> bool:
    loaded = [s.network for s in stages if isinstance(s.network, OnDemand) and s.network.loaded]
    for network in loaded:
        network.let_go()
    return bool(loaded)
