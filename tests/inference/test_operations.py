"""A guard: operations, windows and bytes stand here as numbers, so that a regression is seen."""

import pytest
import torch
from test_budget import paper_plan
from test_predictor import plan_of, smooth_scan, stage_of, weights_of
from torch.utils.flop_counter import FlopCounterMode

from cfseg.geometry import Geometry
from cfseg.inference.buffers import stage_buffers
from cfseg.inference.predictor import Windows
from cfseg.inference.steps import Timed, count_windows, measure
from cfseg.networks.build import build_network
from cfseg.networks.operations import window_operations
from cfseg.preprocessing.restore import Restoration

GB = 1e9


@pytest.mark.parametrize("decoder_stop", [0, 1])
def test_operations_are_those_that_torch_counts(decoder_stop) -> None:
    plan = plan_of().model_copy(update={"deep_supervision": (0.6, 0.4)})
    network = build_network(plan, decoder_stop).eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, 1, *plan.patch))
    assert window_operations(plan, decoder_stop) == counter.get_total_flops()


PATCHES = {(64, 160, 224): 1046.5, (96, 128, 192): 1076.4, (96, 160, 192): 1345.5}


@pytest.mark.parametrize(("patch", "gflop"), PATCHES.items())
def test_operations_of_the_papers_windows(patch, gflop) -> None:
    """As counted apart from this code; see the table of the design notes."""
    assert window_operations(paper_plan(patch=patch)) / 1e9 == pytest.approx(gflop, rel=1e-3)


def test_stopping_the_decoder_saves_more_than_half() -> None:
    plan = paper_plan()
    assert window_operations(plan, 2) < 0.45 * window_operations(plan)


def test_windows_of_a_whole_scan_and_of_its_regions() -> None:
    geometry = Geometry.from_spacing((120, 512, 512), (2.5, 0.75, 0.75))
    body = Geometry.from_spacing((120, 363, 469), (2.5, 0.75, 0.75))
    counts = [
        count_windows(with_plan(paper_plan()), volume_on(grid), step)
        for grid in (geometry, body)
        for step in (0.5, 1.0)
    ]
    assert counts == [60, 18, 36, 12]


def with_plan(plan):
    stage = stage_of(plan_of(), weights_of(plan_of()))
    return type(stage)("coarse", "coarse", plan, stage.network, stage.device)


def volume_on(geometry: Geometry):
    class Grid:
        pass

    grid = Grid()
    grid.geometry = geometry
    return grid


def test_bytes_of_a_stage_stay_within_what_was_reached() -> None:
    geometry = Geometry.from_spacing((120, 512, 512), (2.5, 0.75, 0.75))
    buffers = stage_buffers(paper_plan(), geometry, "openvino")
    assert sum(buffers.values()) < 2.4 * GB
    assert buffers["sums"] + buffers["image"] + buffers["slabs"] < 1.1 * GB


def test_arrays_are_no_larger_than_planned(monkeypatch) -> None:
    """What the steps allocate at full size is the image, the open planes and the labels."""
    plan, volume = plan_of(), smooth_scan((40, 96, 96))
    stage = stage_of(plan, weights_of(plan))
    planned = stage_buffers(plan, volume.geometry, "torch")
    sizes: list[int] = []
    for name in ("empty", "zeros"):
        real = getattr(torch, name)

        def recorded(*shape, real=real, **kwargs):
            made = real(*shape, **kwargs)
            sizes.append(made.element_size() * made.nelement())
            return made

        monkeypatch.setattr(torch, name, recorded)
    cost, _ = measure(stage, volume, Windows(0.5), most=1)
    assert cost.derived
    assert max(sizes) <= max(planned["sums"], planned["image"])


def test_each_window_is_run_once_and_each_plane_restored_once(monkeypatch) -> None:
    plan, volume = plan_of(), smooth_scan()
    stage = stage_of(plan, weights_of(plan))
    calls = Timed(stage.network)
    planes: list[int] = []
    add = Restoration.add
    monkeypatch.setattr(
        Restoration, "add", lambda self, p: (planes.append(p.shape[1]), add(self, p))
    )
    coarse = type(stage)("coarse", "coarse", plan, calls, stage.device)
    cost, _ = measure(coarse, volume, Windows(0.5))
    assert len(calls.seconds) == cost.windows
    assert sum(planes) == round(30 * 2.5 / 3.2)
    assert cost.gflop == pytest.approx(cost.windows * window_operations(plan) / 1e9)
    assert set(cost.seconds) == {"prepare", "network", "add", "restore"}
    assert min(cost.seconds.values()) >= 0
    assert not cost.derived
