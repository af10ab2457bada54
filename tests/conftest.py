import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from cfseg.bundle.bundle import write_bundle
from cfseg.cli import main
from cfseg.networks.build import build_network
from cfseg.phantoms.phantom import Phantom, PhantomSpec, generate
from cfseg.plan import Architecture, Intensity, Role, StagePlan
from cfseg.recipes.recipe import Cascade


def tiny_plan(role: Role) -> StagePlan:
    return StagePlan(
        spacing_mm=(6.0, 6.0, 6.0),
        patch=(16, 16, 16),
        labels=tuple(range(15 if role == "tumor" else 14)),
        architecture=Architecture(
            features=(4, 8),
            kernel_sizes=((3, 3, 3), (3, 3, 3)),
            strides=((1, 1, 1), (2, 2, 2)),
            n_conv_encoder=(1, 1),
            n_conv_decoder=(1,),
        ),
        intensity=Intensity(lower=-200, upper=300, mean=60, std=100),
    )


FIRST = (
    "learning/test_distributed.py", "cli/test_readme.py", "training/test_kill.py",
    "training/test_pipeline.py",
)  # fmt: skip
"""The files that take longest: no process shall begin with one of them when the others end."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Bring the files that take longest to the front where pytest-xdist shares them out."""
    if hasattr(config, "workerinput"):
        rank = {Path(__file__).parent / name: place for place, name in enumerate(FIRST)}
        items.sort(key=lambda item: rank.get(item.path, len(FIRST)))


@pytest.fixture(scope="session")
def phantom() -> Phantom:
    """A synthetic abdomen with tumors, 96 x 112 x 128 voxels of about 3 mm. Nobody changes it."""
    made = generate(31, 0, PhantomSpec(tumor=True))
    made.volume.hu.flags.writeable = made.label_map.ids.flags.writeable = False
    return made


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four tiny networks with random weights: fast, and wrong about everything."""
    networks = []
    roles: tuple[Role, ...] = ("coarse", "tumor", "tumor", "organ")
    for seed, role in enumerate(roles):
        torch.manual_seed(seed)
        plan = tiny_plan(role)
        state = build_network(plan).state_dict()
        weights = {
            name: tensor
            for name, tensor in state.items()
            if "all_modules" not in name and not name.startswith("decoder.encoder.")
        }
        networks.append((role, plan, weights, {}))
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    return write_bundle(
        folder, "tiny", networks, Cascade(), {}, "Random weights. Not for clinical use."
    )


@dataclass(frozen=True)
class Ended:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


@pytest.fixture
def cfseg(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Ended]]:
    """Run a command line as a shell would, in this process, and tell how it ended."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(os, "environ", os.environ.copy())

    def run(*words: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["cfseg", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        code = end.value.code
        assert isinstance(code, int)
        return Ended(code, *capsys.readouterr())

    yield run
    signal.signal(signal.SIGTERM, before)
