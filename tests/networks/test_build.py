import sys
from subprocess import run

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)

from cfseg.errors import ModelError
from cfseg.networks.build import build_network, load_network
from cfseg.plan import Architecture, Intensity, StagePlan

CPU = torch.device("cpu")
STRIDES = ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2))


def plan_of(stages: int = 5, deep_supervision: tuple[float, ...] = ()) -> StagePlan:
    return StagePlan(
        spacing_mm=(3.0, 2.0, 2.0),
        patch=(16, 32, 32),
        labels=(0, 1, 14),
        architecture=Architecture(
            features=(4, 6, 8, 8, 8)[:stages],
            kernel_sizes=((3, 3, 3),) * stages,
            strides=STRIDES[:stages],
            n_conv_encoder=(1, 2, 1, 1, 1)[:stages],
            n_conv_decoder=(1,) * (stages - 1),
        ),
        intensity=Intensity(lower=-160, upper=300, mean=70, std=80),
        deep_supervision=deep_supervision,
    )


def weights_of(plan: StagePlan, seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {name: tensor.clone() for name, tensor in build_network(plan).state_dict().items()}


def image(seed: int = 0) -> torch.Tensor:
    return torch.randn(1, 1, 16, 32, 32, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("decoder_stop", [0, 1, 2])
def test_logits_have_the_size_of_the_image(decoder_stop) -> None:
    network = build_network(plan_of(), decoder_stop).eval()
    assert network(image()).shape == (1, 3, 16, 32, 32)


def test_names_are_those_of_nnunet_whatever_runs() -> None:
    names = set(build_network(plan_of()).state_dict())
    assert "encoder.stages.1.0.convs.1.conv.weight" in names
    assert "decoder.seg_layers.3.bias" in names
    assert set(build_network(plan_of(), decoder_stop=2).state_dict()) == names


@pytest.mark.parametrize("decoder_stop", [1, 2])
def test_a_stopped_decoder_gives_the_deep_supervision_head(decoder_stop) -> None:
    plan = plan_of()
    weights = weights_of(plan)
    whole = load_network(plan, weights, CPU)
    whole.decoder.deep_supervision = True
    head = whole(image())[decoder_stop]
    assert head.shape[-1] == 32 // 2**decoder_stop
    expected = F.interpolate(head, size=(16, 32, 32), mode="trilinear", align_corners=False)
    stopped = load_network(plan, weights, CPU, decoder_stop)
    torch.testing.assert_close(stopped(image()), expected)


def test_the_stages_left_out_are_not_run() -> None:
    stopped = build_network(plan_of(), decoder_stop=2).eval()
    run_stages: list[int] = []
    for index, stage in enumerate(stopped.decoder.stages):
        stage.register_forward_hook(lambda *_, index=index: run_stages.append(index))
    stopped(image())
    assert run_stages == [0, 1]


@pytest.mark.parametrize("decoder_stop", [-1, 4, 7])
def test_a_stop_beyond_the_decoder_is_refused(decoder_stop) -> None:
    with pytest.raises(ModelError, match="decoder stages"):
        build_network(plan_of(), decoder_stop)


@pytest.mark.parametrize(
    ("deep_supervision", "decoder_stop", "allowed"),
    [
        ((0.533, 0.267, 0.2, 0.0), 2, True),
        ((0.533, 0.267, 0.2, 0.0), 3, False),
        ((1.0, 0.0, 0.0, 0.0), 1, False),
        ((1.0,), 1, False),  # trained without deep supervision
        ((0.0, 1.0, 0.0, 0.0), 0, True),  # the finest head is what a network is for
        ((), 2, True),
        ((), 3, False),  # nnU-Net never trains the coarsest head
    ],
)
def test_an_untrained_head_is_refused(deep_supervision, decoder_stop, allowed) -> None:
    plan = plan_of(deep_supervision=deep_supervision)
    if allowed:
        build_network(plan, decoder_stop)
        return
    with pytest.raises(ModelError, match="training was 0"):
        build_network(plan, decoder_stop)


@pytest.mark.parametrize(
    "keep",
    [
        lambda name: True,
        lambda name: not name.startswith("decoder.encoder."),
        lambda name: "all_modules" not in name and not name.startswith("decoder.encoder."),
        lambda name: ".conv.w" not in name or not name.startswith("encoder."),
    ],
    ids=["all", "no-shared-encoder", "each-once", "encoder-through-decoder"],
)
def test_a_tensor_may_be_given_by_any_of_its_names(keep) -> None:
    plan = plan_of()
    weights = weights_of(plan)
    network = load_network(plan, {n: t for n, t in weights.items() if keep(n)}, CPU)
    loaded = network.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in weights.items())


def test_a_loaded_network_only_predicts() -> None:
    plan = plan_of()
    network = load_network(plan, weights_of(plan), CPU)
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())


def test_what_does_not_fit_is_named_in_one_error() -> None:
    plan = plan_of()
    weights = weights_of(plan)
    del weights["decoder.seg_layers.3.bias"]
    weights["decoder.seg_layers.0.bias"] = torch.zeros(5)
    weights["extra.weight"] = torch.zeros(1)
    with pytest.raises(ModelError) as caught:
        load_network(plan, weights, CPU)
    for part in (
        "decoder.seg_layers.3.bias missing",
        "extra.weight unknown",
        "decoder.seg_layers.0.bias of another shape",
    ):
        assert part in caught.value.message


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(ModelError, match=r"and .* more"):
        load_network(plan_of(stages=5), weights_of(plan_of(stages=4)), CPU)


def test_building_does_not_import_nnunet_or_torchvision() -> None:
    code = (
        "import sys, cfseg.networks.build; "
        "sys.exit(any(m in sys.modules for m in ('nnunetv2', 'torchvision')))"
    )
    assert run([sys.executable, "-c", code], check=False).returncode == 0
