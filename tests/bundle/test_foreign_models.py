"""Models of others: whatever their files hold, the answer is a model or a ModelError."""

import json
import struct
from pathlib import Path

import pytest
import safetensors.torch
import torch
from small_models import (
    NEW_NETWORK,
    OLD_NETWORK,
    dataset_json,
    plans_json,
    random_v1,
    random_weights,
    small_plan,
    write_model_folder,
)

from cfseg.bundle import nnunet_v2
from cfseg.bundle.bundle import load_stages, read_manifest, read_weights, write_bundle
from cfseg.bundle.manifest import MANIFEST, sha256_of
from cfseg.bundle.nnunet_v1 import architecture_of, convert
from cfseg.bundle.nnunet_v2 import flare_labels, read_model_folder
from cfseg.bundle.plans_v2 import plan_from_json
from cfseg.errors import ModelError
from cfseg.networks.build import fitting_weights
from cfseg.plan import Architecture
from cfseg.recipes.recipe import Cascade
from mutants import mutant

ARCH = "architecture/arch_kwargs"


def test_no_mutant_of_a_model_folder_ends_otherwise(tmp_path, monkeypatch):
    folder = write_model_folder(tmp_path, small_plan())
    contents = nnunet_v2.read_checkpoint(folder / "fold_0" / "checkpoint_final.pth")
    monkeypatch.setattr(nnunet_v2, "read_checkpoint", lambda _: contents)
    refusals = []
    for seed in range(100):
        plans = plans_json(OLD_NETWORK if seed % 2 else NEW_NETWORK)
        files = {"plans.json": plans, "dataset.json": dataset_json()}
        broken = "dataset.json" if seed % 4 == 3 else "plans.json"
        for name, values in files.items():
            made = mutant(values, seed) if name == broken else json.dumps(values).encode()
            (folder / name).write_bytes(made)
        try:
            fitting_weights(*read_model_folder(folder, "organ"))
        except ModelError as error:
            refusals.append(error.message)
    assert 50 < len(refusals) < 95
    for message in refusals:
        assert str(folder) in message or "fit the plan" in message
        assert len(message.encode("utf-8")) < 700


def with_value(path, value, network=NEW_NETWORK):
    plans = plans_json(network)
    *tables, key = path.split("/")
    table = plans["configurations"]["3d_fullres"]
    for name in tables:
        table = table[name]
    table[key] = value
    return plans


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (f"{ARCH}/features_per_stage", [4, 8, 8, 10**9], "features.3"),
        (f"{ARCH}/n_stages", 1000, "n_stages: .* less than or equal to 12 .*1000"),
        (f"{ARCH}/n_stages", True, "n_stages: a number is needed .*True"),
        (f"{ARCH}/kernel_sizes", [[3, 3, 3], [3, 3, 3], [3, 3, 3], [99, 3, 3]], "kernel_sizes.3.0"),
        (f"{ARCH}/kernel_sizes", 2, "an even one"),
        (f"{ARCH}/kernel_sizes", {"0": 3}, "kernel_sizes: Input should be a valid list"),
        (f"{ARCH}/strides", [[2, 2, 2]] * 4, "first stage has a stride"),
        (f"{ARCH}/strides", [1, None, 2, 2], "strides.1"),
        (f"{ARCH}/n_conv_per_stage", [2, 2, 2, 10**9], "n_conv_encoder.3"),
        (f"{ARCH}/n_conv_per_stage", "2222", "n_conv_per_stage: Input should be a valid list"),
        (f"{ARCH}/norm_op_kwargs", {"affine": True, "eps": float("nan")}, "norm_op_kwargs.eps"),
        (f"{ARCH}/norm_op", 3, "norm_op"),
        ("architecture", [], "architecture: an object is needed"),
        ("patch_size", [8, 16, 10**6], "patch.2"),
        ("patch_size", [1024, 1024, 1024], "voxels"),
        ("patch_size", [8, 16, 18], "strides"),
        ("patch_size", 3.5, "patch_size"),
        ("spacing", [1e-9, 1, 1], "spacing_mm.0"),
        ("spacing", ["3", 2, 2], "spacing.0: a number is needed .*'3'"),
        ("spacing", float("inf"), "spacing"),
        ("normalization_schemes", 1, "normalization_schemes"),
        ("resampling_fn_data_kwargs", None, "resampling_fn_data_kwargs: an object is needed"),
        ("resampling_fn_data_kwargs", {"order": None}, "resampling_fn_data_kwargs.order"),
        ("inherits_from", ["3d_fullres"], "inherits"),
    ],
)
def test_odd_values_of_plans_are_named(path, value, message):
    with pytest.raises(ModelError, match=f"plans.json.*{message}"):
        plan_from_json(with_value(path, value), "3d_fullres", tuple(range(14)), "nnUNetTrainer")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("configurations", []),
        ("configurations", {"3d_fullres": 3}),
        ("transpose_forward", [0, 1, "2"]),
        ("transpose_forward", None),
        ("foreground_intensity_properties_per_channel", {"0": {"mean": 1}}),
        ("foreground_intensity_properties_per_channel", []),
    ],
)
def test_odd_values_of_all_plans_are_named(key, value):
    plans = plans_json() | {key: value}
    with pytest.raises(ModelError, match=f"plans.json: {key}"):
        plan_from_json(plans, "3d_fullres", tuple(range(14)), "nnUNetTrainer")


@pytest.mark.parametrize("base", [10**18, -1, None, "4", [4]])
def test_odd_widths_of_an_old_network_are_refused(base):
    plans = with_value("UNet_base_num_features", base, OLD_NETWORK)
    plans["configurations"]["3d_fullres"]["unet_max_num_features"] = 10**18
    with pytest.raises(ModelError, match=r"plans\.json: (UNet_base|features)"):
        plan_from_json(plans, "3d_fullres", tuple(range(14)), "nnUNetTrainer")


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ({"labels": []}, "labels: an object is needed"),
        ({"labels": {"background": False, "liver": True}}, "labels.background: a whole number"),
        ({"labels": {"background": 0, "liver": None}}, "labels.liver: a whole number"),
        ({"labels": {"background": 0, "liver": {"id": 1}}}, "labels.liver: a whole number"),
        ({"labels": {"background": 0} | {f"rib {i}": i for i in range(1, 5000)}}, "4994 more"),
        ({"labels": {"background": 0, "liver": 1}, "channel_names": 1}, "channel_names: an object"),
        ({"labels": {"background": 0, "liver": 1}, "channel_names": {}}, "no channel"),
    ],
)
def test_odd_values_of_a_dataset_are_named(dataset, message):
    with pytest.raises(ModelError, match=f"dataset.json: .*{message}"):
        flare_labels(dataset)


def test_a_name_without_end_is_cut():
    with pytest.raises(ModelError, match="no FLARE label is called 999") as caught:
        flare_labels({"labels": {"background": 0, "9" * 5000: 1}})
    assert len(caught.value.message) < 500


# -- nnU-Net v1 ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("tu.0.weight", torch.ones(8), "1 axes"),
        ("conv_blocks_context.0.blocks.0.conv.weight", torch.ones(()), "0 axes"),
        ("conv_blocks_context.9.blocks.0.instnorm.weight", torch.ones(8), "stages are missing"),
        (f"conv_blocks_context.{'9' * 5000}.blocks.0.conv.weight", torch.ones(8), "no layer|axes"),
    ],
)
def test_odd_tensors_of_nnunet_v1_are_refused(name, value, message):
    state = random_v1(14).state_dict() | {name: value}
    for read in (convert, architecture_of):
        with pytest.raises(ModelError, match=message):
            read(state)


# -- weights -------------------------------------------------------------------------------------


def bundle_with(tmp_path: Path, contents: bytes) -> Path:
    """Return a bundle whose organ network has these bytes, and their digest."""
    networks = [("organ", small_plan(), random_weights(small_plan()), {})]
    path = write_bundle(tmp_path / "b", "b", networks, Cascade(stages=("organ",)))
    (path / "organ.safetensors").write_bytes(contents)
    manifest = json.loads((path / MANIFEST).read_text())
    manifest["stages"][0]["sha256"] = sha256_of(contents)
    (path / MANIFEST).write_text(json.dumps(manifest))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.index_fill(0, torch.tensor([1]), float("nan")), "NaN or infinite"),
        (lambda t: t.index_fill(0, torch.tensor([1]), -float("inf")), "NaN or infinite"),
        (lambda t: t.double() + 1e300, "NaN or infinite"),
        (lambda t: t.long(), "int64"),
        (lambda t: t.to(torch.complex64), "complex64"),
    ],
)
def test_weights_that_are_no_numbers_are_refused_before_a_scan_is_read(tmp_path, change, message):
    weights = random_weights(small_plan())
    name = "decoder.stages.1.convs.0.norm.weight"
    weights[name] = change(weights[name])
    path = bundle_with(tmp_path, safetensors.torch.save(weights))
    with pytest.raises(ModelError, match=f"stage organ: .*{name} .*{message}"):
        load_stages(path, read_manifest(path), ("organ",), torch.device("cpu"))


def test_a_graph_with_weights_that_are_no_numbers_is_refused(tmp_path):
    ov = pytest.importorskip("openvino")
    from cfseg.networks.openvino_graph import build_graph
    from cfseg.networks.openvino_runner import read_graph

    weights = random_weights(small_plan())

    def stored():
        graph = build_graph(small_plan(), weights)
        ov.save_model(graph, tmp_path / "g.xml", compress_to_fp16=False)
        return (tmp_path / "g.xml").read_bytes(), (tmp_path / "g.bin").read_bytes()

    assert read_graph(*stored()).get_ops()
    weights["decoder.seg_layers.2.bias"][3] = float("nan")
    with pytest.raises(ModelError, match="NaN or infinite"):
        read_graph(*stored())


def test_a_list_of_tensors_without_end_is_refused(tmp_path):
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({f"w{number}": entry for number in range(70_000)}).encode()
    contents = struct.pack("<Q", len(header)) + header
    (tmp_path / "w.safetensors").write_bytes(contents)
    with pytest.raises(ModelError, match="too long"):
        read_weights(tmp_path / "w.safetensors", sha256_of(contents))


def test_a_damaged_list_of_tensors_is_named_in_a_few_words(tmp_path):
    header = json.dumps({"w": {"dtype": "a" * 5000, "shape": [0], "data_offsets": [0, 0]}}).encode()
    contents = struct.pack("<Q", len(header)) + header
    (tmp_path / "w.safetensors").write_bytes(contents)
    with pytest.raises(ModelError, match="not a safetensors file") as caught:
        read_weights(tmp_path / "w.safetensors", sha256_of(contents))
    assert len(caught.value.message) < 400


def test_weights_that_share_their_memory_are_written_apart(tmp_path):
    weights = random_weights(small_plan())
    first, second = (f"decoder.stages.{stage}.convs.0.norm.bias" for stage in (0, 1))
    weights[second] = weights[first]
    path = write_bundle(
        tmp_path / "b", "b", [("organ", small_plan(), weights, {})], Cascade(stages=("organ",))
    )
    entry = read_manifest(path).stages[0]
    assert torch.equal(read_weights(path / entry.weights, entry.sha256)[second], weights[first])


# -- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "notice"), [("a\x1b[31mb", ""), ("a\nb", ""), ("a" * 201, ""), ("a", "n" * 5001)]
)
def test_names_that_cannot_be_shown_are_refused(tmp_path, name, notice):
    networks = [("organ", small_plan(), random_weights(small_plan()), {})]
    with pytest.raises(ModelError, match=r"name|notice"):
        write_bundle(tmp_path / "b", name, networks, Cascade(stages=("organ",)), notice=notice)
    assert not (tmp_path / "b").exists()


def test_the_largest_network_that_a_plan_may_describe_is_described_at_once():
    stages = 12
    plan = small_plan().model_copy(
        update={
            "architecture": Architecture(
                features=(4096,) * stages,
                kernel_sizes=((31, 31, 31),) * stages,
                strides=((1, 1, 1), *((2, 2, 2),) * 7, *((1, 1, 1),) * 4),
                n_conv_encoder=(32,) * stages,
                n_conv_decoder=(32,) * (stages - 1),
            )
        }
    )
    with pytest.raises(ModelError, match="missing"):
        fitting_weights(plan, {})
