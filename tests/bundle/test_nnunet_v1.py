import pytest
import torch
from small_models import FEATURES, STRIDES, random_v1, small_plan

from cfseg.bundle.nnunet_v1 import architecture_of, convert, read_v1_folder
from cfseg.errors import ModelError
from cfseg.networks.build import load_network
from cfseg.recipes.recipe import load

CPU = torch.device("cpu")
AUTHORS = load("authors").v1
LAYOUTS = {
    "small": {},
    "three convolutions": {"layers": 3},
    "two poolings": {"features": (4, 4, 6), "pools": ((2, 2, 2), (2, 4, 4))},
    "as the authors', narrower": {
        "features": (2, 4, 6, 8, 8, 8),
        "pools": ((2, 2, 2),) * 4 + ((1, 2, 2),),
    },
}


def big_image():
    return torch.randn(1, 1, 16, 64, 64, generator=torch.Generator().manual_seed(5))


def as_v2(network, classes):
    plan = small_plan(tuple(range(classes)), deep_supervision=())
    plan = plan.model_copy(update={"architecture": architecture_of(network.state_dict())})
    return plan, convert(network.state_dict())


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_converted_network_gives_the_same_logits(layout):
    network = random_v1(14, **layout)
    plan, weights = as_v2(network, 14)
    converted = load_network(plan, weights, CPU)
    with torch.no_grad():
        expected = network(big_image())[0]
    assert expected.std() > 0.1
    torch.testing.assert_close(converted(big_image()), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("decoder_stop", [1, 2])
def test_the_coarser_heads_are_converted_too(decoder_stop):
    network = random_v1(14, **LAYOUTS["as the authors', narrower"])
    plan, weights = as_v2(network, 14)
    converted = load_network(plan, weights, CPU, decoder_stop)
    with torch.no_grad():
        expected = torch.nn.functional.interpolate(
            network(big_image())[decoder_stop], size=(16, 64, 64), mode="trilinear"
        )
    torch.testing.assert_close(converted(big_image()), expected, atol=1e-5, rtol=0)


def test_the_shapes_tell_the_architecture():
    found = architecture_of(random_v1(14).state_dict())
    assert found == small_plan().architecture
    assert (found.features, found.strides) == (FEATURES, STRIDES)


def write_four(folder, wrap=lambda state: state, half=False):
    for number, network in enumerate(AUTHORS.networks):
        layout = LAYOUTS["as the authors', narrower"]
        state = random_v1(len(network.labels), number, **layout).state_dict()
        state = {n: t.half() if half else t for n, t in state.items()}
        torch.save(wrap(state), folder / network.file)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 1000},
        lambda state: {"state_dict": {f"module.{n}": t for n, t in state.items()}},
    ],
    ids=["raw", "checkpoint", "of DataParallel"],
)
@pytest.mark.parametrize("half", [False, True])
def test_the_authors_files_become_stages(tmp_path, wrap, half):
    write_four(tmp_path, wrap, half)
    found = read_v1_folder(tmp_path, AUTHORS)
    assert [role for role, *_ in found] == ["coarse", "tumor", "tumor", "organ"]
    for number, (_, plan, weights, provenance) in enumerate(found):
        assert plan.resampling.method == "trilinear"
        assert not plan.resampling.normalize_first
        assert plan.deep_supervision == pytest.approx((8 / 15, 4 / 15, 2 / 15, 1 / 15, 0))
        assert provenance["file"] == AUTHORS.networks[number].file
        assert len(provenance["sha256"]) == 64
        loaded = load_network(plan, weights, CPU)
        layout = LAYOUTS["as the authors', narrower"]
        expected = random_v1(len(plan.labels), number, **layout)
        if half:
            expected = expected.half().float()
        with torch.no_grad():
            logits = expected(big_image())[0]
        torch.testing.assert_close(loaded(big_image()), logits, atol=1e-5, rtol=0)


def test_a_missing_file_is_named_with_its_source(tmp_path):
    write_four(tmp_path)
    (tmp_path / "organ_model.pth").unlink()
    with pytest.raises(ModelError, match=r"organ_model\.pth; get them from Zenodo record 8372563"):
        read_v1_folder(tmp_path, AUTHORS)


def without(part):
    state = random_v1(14).state_dict()
    return {name: tensor for name, tensor in state.items() if not name.startswith(part)}


@pytest.mark.parametrize(
    "part", ["tu.", "tu.1", "conv_blocks_context.0", "conv_blocks_localization.2", "conv_blocks"]
)
def test_a_state_dict_with_missing_stages_is_refused(tmp_path, part):
    write_four(tmp_path)
    torch.save(without(part), tmp_path / "organ_model.pth")
    with pytest.raises(ModelError, match=r"organ_model\.pth"):
        read_v1_folder(tmp_path, AUTHORS)


def test_a_missing_layer_does_not_load():
    network = random_v1(14)
    plan, _ = as_v2(network, 14)
    with pytest.raises(ModelError, match="missing"):
        load_network(plan, convert(without("seg_outputs.2")), CPU)


def test_another_networks_layer_is_refused():
    state = random_v1(14).state_dict() | {"encoder.layer1.weight": torch.ones(1)}
    with pytest.raises(ModelError, match=r"encoder\.layer1\.weight is no layer"):
        convert(state)


def test_a_2d_network_is_refused():
    state = {n: t.squeeze(2) if t.ndim == 5 else t for n, t in random_v1(14).state_dict().items()}
    with pytest.raises(ModelError):
        architecture_of({n: t[:, :, 0] if t.ndim == 5 else t for n, t in state.items()})
