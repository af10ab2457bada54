from pathlib import Path

import pytest
import torch

from cfseg.bundle.bundle import write_bundle
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


FIRST = ("trained", "training/test_kill.py", "cli/test_readme.py", "training/test_distributed.py")
"""Groups of tests that take longest: no process shall begin with one of them when others end."""


def group_of(item: pytest.Item) -> str:
    """Return the name of the tests that share what is dear: a trained cascade, or one file's."""
    if "trained" in getattr(item, "fixturenames", ()):
        return "trained"
    return item.path.relative_to(Path(__file__).parent).as_posix()


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in the same hook
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tell pytest-xdist what stays in one process and, where it is at work, what goes first."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group_of(item)))
    if hasattr(config, "workerinput"):
        rank = {name: place for place, name in enumerate(FIRST)}
        items.sort(key=lambda item: rank.get(group_of(item), len(FIRST)))


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
