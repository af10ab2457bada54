from importlib.util import find_spec
from pathlib import Path
from subprocess import run
from sys import executable

import pytest
import torch
from test_build import image, plan_of, weights_of

from cfseg.bundle.bundle import load_stages
from cfseg.bundle.manifest import read_manifest
from cfseg.errors import ModelError, UsageError
from cfseg.geometry import Box
from cfseg.inference.cascade import segment_volume
from cfseg.networks import backends
from cfseg.networks.backends import OnDemand, find_backend, load
from cfseg.phantoms.phantom import Phantom

CPU, GPU = torch.device("cpu"), torch.device("cuda")
needs_openvino = pytest.mark.skipif(
    find_spec("openvino") is None, reason="OpenVINO is not installed: pip install cfseg[openvino]"
)
LAYOUTS = {
    "plain": {},
    "anisotropic": {"kernel_sizes": ((1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 1))},
    "no bias": {"conv_bias": False},
    "more layers": {"n_conv_encoder": (2, 1, 3, 2, 1), "n_conv_decoder": (1, 3, 2, 1)},
    "slope": {"negative_slope": 0.2, "norm_eps": 1e-2},
}


def layout(**change):
    plan = plan_of()
    return plan.model_copy(update={"architecture": plan.architecture.model_copy(update=change)})


def shaken(plan, seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights whose norms and biases do something, unlike fresh ones."""
    weights = weights_of(plan, seed)
    generator = torch.Generator().manual_seed(seed)
    shifts = {id(t): 0.3 * torch.randn(t.shape, generator=generator) for t in weights.values()}
    return {name: tensor + shifts[id(tensor)] for name, tensor in weights.items()}


@needs_openvino
@pytest.mark.parametrize("decoder_stop", [0, 1, 2])
@pytest.mark.parametrize("name", LAYOUTS)
def test_openvino_computes_what_torch_does(name, decoder_stop) -> None:
    plan = layout(**LAYOUTS[name])
    for weights in (weights_of(plan), shaken(plan)):
        given = {n: t for n, t in weights.items() if "all_modules" not in n}
        given = {n: t for n, t in given.items() if not n.startswith("decoder.encoder")}
        expected = load(plan, given, CPU, decoder_stop)(image())
        found = load(plan, given, CPU, decoder_stop, "openvino")(image())
        assert found.shape == expected.shape
        assert (found - expected).abs().max() <= 1e-3
        assert expected.abs().max() > 0.5
        assert (found.argmax(1) == expected.argmax(1)).float().mean() >= 0.9999


@needs_openvino
def test_a_rested_network_says_the_same() -> None:
    network = load(plan_of(), weights_of(plan_of()), CPU, 0, "openvino")
    before = network(image()).clone()
    network.rest()
    assert torch.equal(network(image()), before)
    # Parts of a volume are not contiguous.
    wide = torch.zeros(1, 1, 16, 32, 64)
    wide[..., 1::2] = image()
    assert torch.equal(network(wide[..., 1::2]), before)


@needs_openvino
def test_openvino_refuses_weights_that_do_not_fit() -> None:
    weights = weights_of(plan_of())
    del weights["decoder.seg_layers.3.bias"]
    with pytest.raises(ModelError, match=r"seg_layers\.3\.bias missing"):
        load(plan_of(), weights, CPU, 0, "openvino")


@needs_openvino
@pytest.mark.slow
def test_the_bundled_model_gives_the_same_labels(bundled: Path, phantom: Phantom) -> None:
    manifest = read_manifest(bundled)
    volume = phantom.volume.crop(Box((20, 16, 16), (84, 96, 112)))
    maps = [
        segment_volume(
            volume, load_stages(bundled, manifest, ("coarse", "organ"), CPU, 0, backend),
            manifest.cascade.model_copy(update={"stages": ("coarse", "organ")}),
        ).label_map.ids
        for backend in ("torch", "openvino")
    ]  # fmt: skip
    assert (maps[0] == maps[1]).mean() >= 0.9999
    assert (maps[0] > 0).any()


@pytest.fixture
def bundled() -> Path:
    from cfseg.bundle.manifest import default_bundle

    if not (default_bundle() / "bundle.json").is_file():
        pytest.skip("the bundled model is not built yet")
    return default_bundle()


@pytest.mark.parametrize(
    ("name", "installed", "device", "found"),
    [
        ("auto", True, CPU, "openvino"),
        ("auto", False, CPU, "torch"),
        ("auto", True, GPU, "torch"),
        ("torch", True, CPU, "torch"),
        ("openvino", True, CPU, "openvino"),
    ],
)
def test_which_backend_is_taken(monkeypatch, name, installed, device, found) -> None:
    monkeypatch.setattr(backends, "find_spec", lambda _: object() if installed else None)
    assert find_backend(name, device) == found


@pytest.mark.parametrize(
    ("name", "installed", "device", "says"),
    [
        ("abacus", True, CPU, "auto, torch or openvino"),
        ("openvino", False, CPU, r"cfseg\[openvino\]"),
        ("openvino", True, GPU, "--device cpu"),
    ],
)
def test_what_cannot_run_is_refused(monkeypatch, name, installed, device, says) -> None:
    monkeypatch.setattr(backends, "find_spec", lambda _: object() if installed else None)
    with pytest.raises(UsageError, match=says):
        find_backend(name, device)


def test_a_network_is_loaded_when_it_is_called_and_can_go() -> None:
    loads: list[int] = []

    def network():
        loads.append(1)
        return lambda window: window + 1

    lazy = OnDemand(network)
    lazy.rest()
    assert loads == []
    assert lazy(torch.zeros(1)).item() == 1
    lazy(torch.zeros(1))
    lazy.rest()
    assert len(loads) == 1
    lazy.let_go()
    lazy(torch.zeros(1))
    assert len(loads) == 2


def test_checking_a_bundle_loads_nothing(tiny_bundle: Path, monkeypatch) -> None:
    monkeypatch.setattr("cfseg.bundle.bundle.load", lambda *_: pytest.fail("loaded too early"))
    assert load_stages(tiny_bundle, read_manifest(tiny_bundle), ("organ",), CPU).organ is not None


def test_torch_alone_never_imports_openvino(tiny_bundle: Path) -> None:
    code = (
        "import sys, cfseg.segmenter as s; "
        f"s.Segmenter({str(tiny_bundle)!r}, 'cpu', 1, backend='torch'); "
        "sys.exit('openvino' in sys.modules)"
    )
    assert run([executable, "-c", code], check=False).returncode == 0


@needs_openvino
def test_openvino_sends_nothing_about_its_use() -> None:
    code = (
        "import sys, cfseg.networks.openvino_silent; "
        "sys.exit('openvino' not in sys.modules or 'openvino_telemetry' in sys.modules)"
    )
    assert run([executable, "-c", code], check=False).returncode == 0
