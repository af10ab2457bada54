import copy
import json

import pytest
import torch
from small_models import (
    NEW_NETWORK,
    OLD_NETWORK,
    ORGANS,
    ORGANS_AND_TUMOR,
    checkpoint,
    dataset_json,
    image,
    plans_json,
    small_plan,
    write_model_folder,
)

from cfseg.bundle.nnunet_v2 import flare_labels, read_model_folder
from cfseg.bundle.plans_v2 import head_weights, plan_from_json, resolved
from cfseg.errors import ModelError
from cfseg.labels import LABELS
from cfseg.networks.build import build_network, load_network
from cfseg.plan import Resampling

CPU = torch.device("cpu")
WEIGHTS_OF_3_HEADS = (2 / 3, 1 / 3, 0.0)


def plan_of(plans, labels=ORGANS, trainer="nnUNetTrainer"):
    return plan_from_json(plans, "3d_fullres", labels, trainer)


def edited(path, value, network=NEW_NETWORK):
    """Return plans with one value of the configuration replaced; ``None`` removes it."""
    plans = copy.deepcopy(plans_json(network))
    *tables, key = path.split("/")
    table = plans["configurations"]["3d_fullres"]
    for name in tables:
        table = table[name]
    if value is None:
        del table[key]
    else:
        table[key] = value
    return plans


@pytest.mark.parametrize("network", [NEW_NETWORK, OLD_NETWORK])
def test_both_formats_tell_the_same_plan(network):
    expected = small_plan(deep_supervision=WEIGHTS_OF_3_HEADS)
    assert plan_of(plans_json(network)) == expected


def test_a_folder_gives_plan_and_weights(tmp_path):
    plan = small_plan()
    folder = write_model_folder(tmp_path, plan, seed=3)
    found, weights = read_model_folder(folder, "organ")
    assert found == small_plan(deep_supervision=WEIGHTS_OF_3_HEADS)
    trained = build_network(plan)
    trained.load_state_dict(checkpoint(plan, seed=3)["network_weights"])
    assert torch.equal(load_network(found, weights, CPU)(image()), trained.eval()(image()))


def test_each_tensor_comes_under_one_name(tmp_path):
    _, weights = read_model_folder(write_model_folder(tmp_path, small_plan()), "organ")
    assert len({tensor.data_ptr() for tensor in weights.values()}) == len(weights)
    assert not [n for n in weights if "all_modules" in n or n.startswith("decoder.encoder")]


def test_stock_nnunet_builds_the_same_network(tmp_path):
    plans_handler = pytest.importorskip("nnunetv2.utilities.plans_handling.plans_handler")
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    stock = plans_handler.PlansManager(plans_json()).get_configuration("3d_fullres")
    theirs = get_network_from_plans(
        stock.network_arch_class_name,
        stock.network_arch_init_kwargs,
        stock.network_arch_init_kwargs_req_import,
        1,
        14,
        deep_supervision=False,
    ).eval()
    folder = write_model_folder(tmp_path, small_plan())
    state = {"network_weights": theirs.state_dict()}
    torch.save(state, folder / "fold_0" / "checkpoint_final.pth")
    plan, weights = read_model_folder(folder, "organ")
    assert torch.equal(load_network(plan, weights, CPU)(image()), theirs(image()))


def test_a_configuration_inherits():
    base = plans_json()["configurations"]["3d_fullres"]
    table = {
        "base": base,
        "mine": {"inherits_from": "base", "patch_size": [16, 16, 16]},
        "yours": {"inherits_from": "mine", "spacing": [1.0, 1.0, 1.0]},
    }
    found = resolved(table, "yours")
    assert (found["patch_size"], found["spacing"]) == ([16, 16, 16], [1.0, 1.0, 1.0])
    assert found["normalization_schemes"] == ["CTNormalization"]
    assert base["patch_size"] == [8, 16, 16]


@pytest.mark.parametrize("parent", ["mine", "nowhere"])
def test_a_configuration_without_an_origin_is_refused(parent):
    with pytest.raises(ModelError, match=parent):
        resolved({"mine": {"inherits_from": parent}}, "mine")


def test_transposed_axes_and_resampling_are_taken_over():
    plans = edited("resampling_fn_data_kwargs/order", 1)
    plans["transpose_forward"] = [1, 0, 2]
    configuration = plans["configurations"]["3d_fullres"]
    for kind in ("data", "probabilities"):
        configuration[f"resampling_fn_{kind}_kwargs"]["force_separate_z"] = True
        configuration[f"resampling_fn_{kind}_kwargs"]["order_z"] = 1
    plan = plan_of(plans)
    assert plan.transpose == (1, 0, 2)
    assert plan.original_spacing_mm == (2.0, 3.0, 2.0)
    assert plan.resampling == Resampling(
        order=1, order_z=1, logits_order=1, logits_order_z=1, separate_z=True
    )


def test_resampling_that_a_planner_left_out_is_nnunets_default():
    plans = edited("resampling_fn_data_kwargs", {"is_seg": False})
    plans["configurations"]["3d_fullres"]["resampling_fn_probabilities_kwargs"] = {}
    assert plan_of(plans).resampling == Resampling(separate_z=False, logits_order=3)


def test_numbers_stand_for_a_list():
    plans = edited("architecture/arch_kwargs/n_conv_per_stage", 2)
    kwargs = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    kwargs |= {"n_conv_per_stage_decoder": 2, "kernel_sizes": 3}
    assert plan_of(plans).architecture == plan_of(plans_json()).architecture


ARCH = "architecture/arch_kwargs"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("normalization_schemes", ["ZScoreNormalization"], "ZScore"),
        ("normalization_schemes", ["CTNormalization"] * 2, "one CT channel"),
        ("patch_size", [16, 16], "2D"),
        ("previous_stage", "3d_lowres", "cascade"),
        ("preprocessor_name", "MyPreprocessor", "MyPreprocessor"),
        ("resampling_fn_data", "resample_torch_simple", "resample_torch_simple"),
        ("resampling_fn_probabilities", "no_resampling_hack", "no_resampling_hack"),
        ("resampling_fn_data_kwargs/force_separate_z", False, "coarse axis"),
        ("architecture/network_class_name", "x.ResidualEncoderUNet", "ResidualEncoderUNet"),
        (f"{ARCH}/conv_op", "torch.nn.modules.conv.Conv2d", "Conv2d"),
        (f"{ARCH}/norm_op", "torch.nn.BatchNorm3d", "BatchNorm3d"),
        (f"{ARCH}/nonlin", "torch.nn.ReLU", "ReLU"),
        (f"{ARCH}/norm_op_kwargs", {"affine": False}, "affine"),
        (f"{ARCH}/features_per_stage", [4, 6, 8], "features"),
        ("spacing", [3.0, 0.0, 2.0], "spacing_mm"),
        ("spacing", None, "spacing is missing"),
        ("resampling_fn_data_kwargs/order", 7, "order"),
    ],
)
def test_what_cfseg_would_run_otherwise_is_refused(path, value, message):
    with pytest.raises(ModelError, match=message):
        plan_of(edited(path, value))


def test_an_old_residual_network_is_refused():
    with pytest.raises(ModelError, match="ResidualEncoderUNet"):
        plan_of(edited("UNet_class_name", "ResidualEncoderUNet", OLD_NETWORK))


@pytest.mark.parametrize(
    ("trainer", "weights"),
    [
        ("nnUNetTrainer", WEIGHTS_OF_3_HEADS),
        ("nnUNetTrainerNoMirroring", WEIGHTS_OF_3_HEADS),
        ("nnUNetTrainerNoDeepSupervision", (1.0, 0.0, 0.0)),
        ("SomebodysTrainer", ()),
    ],
)
def test_the_trainer_tells_the_heads_weights(trainer, weights):
    assert plan_of(plans_json(), trainer=trainer).deep_supervision == weights


def test_five_heads_have_the_weights_that_nnunet_gives_them():
    assert head_weights(5) == pytest.approx([8 / 15, 4 / 15, 2 / 15, 1 / 15, 0])
    assert head_weights(1) == ()


# -- labels --------------------------------------------------------------------------------------

FLARE = ["background"] + [label.name for label in LABELS]
TOTALSEGMENTATOR = [
    "background", "spleen", "kidney_right", "kidney_left", "gallbladder", "liver", "stomach",
    "pancreas", "adrenal_gland_right", "adrenal_gland_left", "esophagus", "duodenum", "aorta",
    "inferior_vena_cava",
]  # fmt: skip
TOTALSEGMENTATOR_IDS = (0, 3, 2, 13, 9, 1, 11, 4, 7, 8, 10, 12, 5, 6)


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (FLARE, ORGANS_AND_TUMOR),
        (FLARE[:14], ORGANS),
        ([name.replace("_", " ").title() for name in FLARE], ORGANS_AND_TUMOR),
        (["background", *(label.abbreviation for label in LABELS)], ORGANS_AND_TUMOR),
        (TOTALSEGMENTATOR, TOTALSEGMENTATOR_IDS),
        (["Background", "Oesophagus", "Left Kidney", "Tumour"], (0, 10, 13, 14)),
        (["background", *map(str, range(1, 14))], ORGANS),
        (["background", *(f"label_{i}" for i in range(1, 15))], ORGANS_AND_TUMOR),
    ],
)
def test_channels_are_named_after_flare(names, ids):
    assert flare_labels(dataset_json(names)) == ids


def test_an_ignore_label_is_no_channel():
    dataset = dataset_json(["background", "liver"])
    dataset["labels"]["ignore"] = 2
    assert flare_labels(dataset) == (0, 1)


def test_the_order_in_the_file_does_not_matter():
    assert flare_labels({"labels": {"spleen": 2, "background": 0, "liver": 1}}) == (0, 1, 3)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"background": 0, "liver": 1, "femur": 2}, "called femur"),
        ({"background": 0, "1": 1, "2": 2}, "called 1, 2"),
        ({"background": 0, "1": 1} | {f"rib {i}": i for i in range(2, 14)}, "rib 2"),
        ({"background": 0, "liver": [1, 2]}, "regions"),
        ({"background": 0, "liver": 2}, "without a gap"),
        ({"background": 0}, "without a gap"),
        ({}, "without a gap"),
        ({"liver": 0, "background": 1}, "label 0 must be background"),
        ({"background": 0, "tumor": 1, "tumour": 2}, "named twice"),
    ],
)
def test_labels_that_are_not_flares_are_refused(labels, message):
    with pytest.raises(ModelError, match=message):
        flare_labels({"channel_names": {"0": "CT"}, "labels": labels})


def test_two_channels_are_refused():
    with pytest.raises(ModelError, match="more than one channel"):
        flare_labels(dataset_json() | {"channel_names": {"0": "CT", "1": "PET"}})


def test_a_tumor_stage_needs_a_tumor_label(tmp_path):
    folder = write_model_folder(tmp_path, small_plan())
    with pytest.raises(ModelError, match="no tumor label"):
        read_model_folder(folder, "tumor")


def test_an_organ_stage_needs_an_organ_label(tmp_path):
    dataset = dataset_json(["background", "tumor"])
    folder = write_model_folder(tmp_path, small_plan((0, 14)), dataset=dataset)
    assert read_model_folder(folder, "tumor")[0].labels == (0, 14)
    with pytest.raises(ModelError, match="cannot be the organ stage"):
        read_model_folder(folder, "organ")


# -- folders -------------------------------------------------------------------------------------


def test_a_fold_must_be_named_where_there_are_several(tmp_path):
    folder = write_model_folder(tmp_path, small_plan(), folds=("0", "all"))
    with pytest.raises(ModelError, match="has the folds 0, all"):
        read_model_folder(folder, "organ")
    for fold in (0, "0", "all"):
        assert read_model_folder(folder, "organ", fold)[0].patch == (8, 16, 16)
    with pytest.raises(ModelError, match="no fold 3"):
        read_model_folder(folder, "organ", 3)


def test_the_final_checkpoint_comes_before_the_best(tmp_path):
    plan = small_plan()
    folder = write_model_folder(tmp_path, plan, seed=1)
    torch.save(checkpoint(plan, seed=2), folder / "fold_0" / "checkpoint_best.pth")
    name = "decoder.seg_layers.2.bias"
    final = read_model_folder(folder, "organ")[1][name]
    best = read_model_folder(folder, "organ", checkpoint="checkpoint_best.pth")[1][name]
    assert torch.equal(final, checkpoint(plan, seed=1)["network_weights"][name])
    assert torch.equal(best, checkpoint(plan, seed=2)["network_weights"][name])
    (folder / "fold_0" / "checkpoint_final.pth").unlink()
    assert torch.equal(read_model_folder(folder, "organ")[1][name], best)
    with pytest.raises(ModelError, match=r"no checkpoint_latest\.pth"):
        read_model_folder(folder, "organ", checkpoint="checkpoint_latest.pth")


def test_the_folders_name_tells_the_configuration_if_the_checkpoint_does_not(tmp_path):
    folder = write_model_folder(tmp_path, small_plan(), trainer="nnUNetTrainerNoDeepSupervision")
    state = {"network_weights": checkpoint(small_plan())["network_weights"]}
    torch.save(state, folder / "fold_0" / "checkpoint_final.pth")
    assert read_model_folder(folder, "organ")[0].deep_supervision == (1.0, 0.0, 0.0)
    renamed = folder.rename(tmp_path / "model")
    with pytest.raises(ModelError, match="configuration"):
        read_model_folder(renamed, "organ")


@pytest.mark.parametrize("name", ["plans.json", "dataset.json"])
@pytest.mark.parametrize("contents", [None, "{", "[]"])
def test_a_damaged_folder_is_refused(tmp_path, name, contents):
    folder = write_model_folder(tmp_path, small_plan())
    (folder / name).unlink()
    if contents is not None:
        (folder / name).write_text(contents)
    with pytest.raises(ModelError, match=name):
        read_model_folder(folder, "organ")


def test_a_folder_without_folds_is_refused(tmp_path):
    (tmp_path / "plans.json").write_text(json.dumps(plans_json()))
    with pytest.raises(ModelError, match="no fold_X"):
        read_model_folder(tmp_path, "organ")
