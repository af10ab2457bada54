import json
from importlib.util import find_spec
from math import inf, prod
from pathlib import Path
from subprocess import run
from sys import executable
from threading import Event, Timer

import numpy as np
import pytest
import torch

from cfseg.bundle.bundle import load_stages
from cfseg.bundle.manifest import read_manifest
from cfseg.errors import ResourceError, UsageError
from cfseg.geometry import Geometry
from cfseg.inference import budget as budgets
from cfseg.inference.budget import Budget, parse_size
from cfseg.inference.buffers import COPIES, layer_bytes, stage_buffers, weight_bytes
from cfseg.inference.cascade import segment_volume
from cfseg.io import read_scan
from cfseg.io.behind import WriteBehind
from cfseg.io.scan import reading_bytes_of
from cfseg.networks.build import build_network
from cfseg.plan import Architecture, Intensity, Resampling, StagePlan
from cfseg.recipes.recipe import Cascade
from cfseg.segmenter import Segmenter
from tiny_ct import ct

CPU = torch.device("cpu")
USED = 100_000_000
PAPER = Architecture(
    features=(32, 64, 128, 256, 320, 320),
    kernel_sizes=((3, 3, 3),) * 6,
    strides=((1, 1, 1), *((2, 2, 2),) * 4, (1, 2, 2)),
    n_conv_encoder=(2,) * 6,
    n_conv_decoder=(2,) * 5,
)


def paper_plan(spacing_mm=(2.5, 0.8, 0.8), patch=(64, 160, 224), rule=None) -> StagePlan:
    return StagePlan(
        spacing_mm=spacing_mm,
        patch=patch,
        labels=tuple(range(14)),
        architecture=PAPER,
        intensity=Intensity(lower=-160, upper=300, mean=70, std=80),
        resampling=rule or Resampling(),
    )


@pytest.mark.parametrize(
    ("text", "size"),
    [("3GB", 3_000_000_000), ("800 mb", 800_000_000), ("2.5GiB", 2_684_354_560), ("1KB", 1000)],
)
def test_sizes(text, size) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "3", "GB", "-1GB", "nanGB", "much", "infGB"])
def test_what_is_no_size(text) -> None:
    with pytest.raises(UsageError, match="3GB"):
        parse_size(text)


@pytest.mark.parametrize(
    "change",
    [{}, {"n_conv_encoder": (1, 2, 3, 1, 2, 1)}, {"kernel_sizes": ((1, 3, 3),) + ((3, 3, 3),) * 5}],
)
def test_the_size_of_the_kernels_is_that_of_the_network(change) -> None:
    plan = paper_plan().model_copy(update={"architecture": PAPER.model_copy(update=change)})
    with torch.device("meta"):
        network = build_network(plan)
    kernels = sum(
        p.numel() for p in network.parameters() if p.ndim == 5 and p.shape[2:] != (1,) * 3
    )
    assert weight_bytes(plan.architecture) == pytest.approx(4 * kernels, rel=1e-3)


def test_a_plan_worked_out_by_hand() -> None:
    # 512x512x120 voxels of 0.75x0.75x2.5 mm become 480x480x120; windows have 64 planes
    geometry = Geometry.from_spacing((120, 512, 512), (2.5, 0.75, 0.75))
    buffers = stage_buffers(paper_plan(), geometry, "openvino")
    assert buffers["sums"] == 14 * 64 * 480 * 480 * 4
    assert buffers["labels"] == 120 * 512 * 512
    assert 120 * 480 * 480 * 4 < buffers["image"] < 1.3 * 120 * 480 * 480 * 4
    assert buffers["window"] == 14 * 64 * 160 * 224 * 4
    assert "logits" not in buffers
    half = stage_buffers(paper_plan(), geometry, "openvino", half=True)
    assert half["sums"] * 2 == buffers["sums"]
    whole = stage_buffers(paper_plan(), geometry, "openvino", whole=3)
    assert whole["sums"] == 14 * 120 * 480 * 480 * 4
    assert whole["logits of other networks"] == 2 * whole["sums"]
    last = stage_buffers(paper_plan(), geometry, "openvino", whole=1)
    assert last["sums"] == whole["sums"]
    assert "logits of other networks" not in last


def test_memory_grows_with_the_window_and_hardly_with_the_slices() -> None:
    few, many = (
        stage_buffers(paper_plan(), Geometry.from_spacing((n, 512, 512), (2.5, 0.8, 0.8)), "torch")
        for n in (100, 600)
    )
    assert few["sums"] == many["sums"]
    more = sum(many.values()) - sum(few.values())
    assert more < 500 * 512 * 512 * (4 + 1) * 1.02  # the image and the labels themselves


def test_four_paper_size_networks_on_600_slices_stay_below_4_gb() -> None:
    """Worked out, not run: a paper-size window takes seconds."""
    scan = (600, 512, 512)
    geometry = Geometry.from_spacing((600, 430, 480), (1.0, 0.75, 0.75))
    base = 350e6  # Python, torch and OpenVINO
    ct_and_maps = prod(scan) * (2 + 2)
    grids = [
        ((2.3, 1.26, 1.26), (64, 160, 224)),
        ((1.76, 1.44, 1.44), (96, 128, 192)),
        ((2.5, 1.26, 1.26), (96, 160, 192)),
    ]
    for grid, patch in grids:
        plan = paper_plan(grid, patch)
        network = COPIES["openvino"] * weight_bytes(PAPER)
        total = base + ct_and_maps + network + sum(
            stage_buffers(plan, geometry, "openvino").values()
        )  # fmt: skip
        assert 2e9 < total < 4e9, (grid, total)


@pytest.fixture
def fixed_use(monkeypatch) -> None:
    monkeypatch.setattr(budgets, "used_bytes", lambda _: USED)


@pytest.fixture
def stages(tiny_bundle: Path):
    return load_stages(tiny_bundle, read_manifest(tiny_bundle), ("coarse", "tumor", "organ"), CPU)


def test_what_is_given_up_and_in_which_order(fixed_use, stages) -> None:
    geometry = Geometry.from_spacing((200, 200, 200), (6.0, 6.0, 6.0))
    full, half = (
        sum(stage_buffers(stages.organ.plan, geometry, "torch", half=h).values())
        for h in (False, True)
    )
    for stage in (stages.coarse, stages.organ):
        stage.network.ready()
    roomy = Budget(USED + full, CPU)
    assert roomy.sums(stages.organ, geometry, [stages.coarse]) is torch.float32
    assert stages.coarse.network.loaded
    assert roomy.given_up == []
    assert roomy.planned == USED + full
    tight = Budget(USED + full - 1, CPU)
    assert tight.sums(stages.organ, geometry, [stages.coarse]) is torch.float16
    assert not stages.coarse.network.loaded
    assert tight.given_up == ["networks are loaded one at a time", "organ: sums in half precision"]
    assert tight.planned == USED + half
    with pytest.raises(ResourceError) as caught:
        Budget(USED + half - 1, CPU).sums(stages.organ, geometry, [])
    assert caught.value.code == "E_TOO_LARGE"
    assert f"{(USED + half) / 1e6:.0f} MB" in caught.value.message


def test_the_limit_may_be_missing(fixed_use, stages) -> None:
    budget = Budget(None, CPU)
    budget.check_smallest([stages.coarse])
    geometry = Geometry.from_spacing((9, 9, 9), (6.0, 6.0, 6.0))
    assert budget.sums(stages.organ, geometry, []) is torch.float32
    made = budget.as_dict()
    assert made["limit_mb"] is None
    assert made["planned_mb"] >= USED / 1e6
    assert made["used_mb"] > 0


def test_what_never_fits_is_refused_before_it_runs(stages, phantom) -> None:
    seen: list[str] = []
    with pytest.raises(ResourceError, match="single window"):
        segment_volume(
            phantom.volume, stages, Cascade(), lambda name, *_: seen.append(name),
            budget=Budget(1_000_000, CPU),
        )  # fmt: skip
    assert seen == []


def test_a_small_budget_gives_the_same_labels(tiny_bundle: Path, phantom) -> None:
    results = []
    for extra in (2_000_000_000, 40_000_000):
        segmenter = Segmenter(tiny_bundle, "cpu", 1, backend="torch")
        budget = Budget(budgets.used_bytes(CPU) + extra, CPU)
        results.append(
            segment_volume(phantom.volume, segmenter.stages, segmenter.cascade, budget=budget)
        )
    assert np.array_equal(results[0].label_map.ids, results[1].label_map.ids)
    assert results[0].memory["planned_mb"] > 0


PROGRAM = """
import json, sys, torch
from cfseg.inference.buffers import layer_bytes
from cfseg.inference.process_memory import peak_bytes, reset_peak, used_bytes
from cfseg.networks.backends import load
from cfseg.io import read_scan
from cfseg.io.behind import WriteBehind
from cfseg.io.scan import reading_bytes_of
from cfseg.networks.build import build_network
from cfseg.plan import StagePlan
plan = StagePlan.model_validate_json(sys.argv[1])
torch.set_num_threads(1)
cpu = torch.device("cpu")
network = load(plan, build_network(plan).state_dict(), cpu, 0, sys.argv[2])
window = torch.randn(1, 1, *plan.patch)
reset_peak(cpu)
before = used_bytes(cpu)
with torch.inference_mode():
    network(window)
print(json.dumps(peak_bytes(cpu) - before))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_layers_take_what_is_planned_for_them(backend) -> None:
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    arch = Architecture(
        features=(24, 32),
        kernel_sizes=((3, 3, 3),) * 2,
        strides=((1, 1, 1), (2, 2, 2)),
        n_conv_encoder=(2, 1),
        n_conv_decoder=(2,),
    )
    plan = paper_plan(patch=(48, 96, 96)).model_copy(update={"architecture": arch})
    command = [executable, "-c", PROGRAM, plan.model_dump_json(), backend]
    used = json.loads(run(command, check=True, capture_output=True).stdout)
    window = 4 * 14 * prod(plan.patch)
    planned = layer_bytes(arch, plan.patch, backend) + window
    print(f"{backend}: {used / 1e6:.0f} MB used, {planned / 1e6:.0f} MB planned")
    assert 0.4 * planned < used <= 1.1 * planned


def test_what_is_being_written_is_part_of_the_plan(fixed_use, stages) -> None:
    geometry = Geometry.from_spacing((200, 200, 200), (6.0, 6.0, 6.0))
    full = sum(stage_buffers(stages.organ.plan, geometry, "torch").values())
    stages.organ.network.ready()
    behind, may_end = WriteBehind(), Event()
    behind.hand_over(lambda: may_end.wait(30), 1_000_000)
    roomy = Budget(USED + full + 1_000_000, CPU, behind=behind)
    assert roomy.sums(stages.organ, geometry, []) is torch.float32
    assert roomy.buffers["writing the last case"] == 1_000_000
    assert roomy.planned == USED + full + 1_000_000
    assert (roomy.given_up, behind.held_bytes) == ([], 1_000_000)
    # One byte less: the writing is waited for, and nothing else is given up.
    Timer(0.1, may_end.set).start()
    tight = Budget(USED + full + 999_999, CPU, behind=behind)
    assert tight.sums(stages.organ, geometry, []) is torch.float32
    assert behind.held_bytes == 0
    assert tight.given_up == ["the last case is written before the next one runs"]
    assert "writing the last case" not in tight.buffers


def test_reading_waits_where_it_does_not_fit_beside_the_writing(tiny_bundle, tmp_path) -> None:
    scan = ct(tmp_path / "x.nii.gz")
    assert reading_bytes_of(scan) == 30 * 28 * 26 * 6  # int16: as stored, in HU, turned
    assert reading_bytes_of(tmp_path) == inf
    roomy, tight = "100GB", f"{(budgets.used_bytes(CPU) + 300e6) / 1e6:.0f}MB"
    for limit, waits in ((roomy, False), (tight, True)):
        segmenter = Segmenter(tiny_bundle, "cpu", 1, backend="torch", max_memory=limit)
        done, may_end = [], Event()
        segmenter.behind.hand_over(lambda e=may_end, d=done: (e.wait(30), d.append(1)), 10**9)
        read: list[bool] = []
        segmenter.ahead.take = lambda *_, r=read, d=done: (r.append(bool(d)), read_scan(scan))[1]
        Timer(0.3, may_end.set).start()
        segmenter.segment(scan)
        segmenter.behind.wait()
        assert read == [waits]


def test_a_scan_that_does_not_fit_is_not_read(tiny_bundle, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(budgets, "used_bytes", lambda _: USED)
    scan = ct(tmp_path / "x.nii.gz")
    segmenter = Segmenter(tiny_bundle, "cpu", 1, backend="torch", max_memory=f"{USED / 1e3:.0f}KB")
    segmenter.ahead.take = lambda *_: pytest.fail("it was read")
    with pytest.raises(ResourceError, match="reading the scan needs about") as refused:
        segmenter.segment(scan)
    assert refused.value.code == "E_TOO_LARGE"
