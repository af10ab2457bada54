import ast
import json
from pathlib import Path

import pytest
import torch
from small_models import ORGANS_AND_TUMOR, image, random_weights, small_plan

import cfseg.errors
from cfseg.bundle.bundle import (
    check_cascade,
    default_bundle,
    digest,
    load_stages,
    read_manifest,
    write_bundle,
)
from cfseg.errors import ModelError, UsageError
from cfseg.networks.build import load_network
from cfseg.recipes.recipe import Cascade, Merge

CPU = torch.device("cpu")
SOURCE = Path(cfseg.errors.__file__).parent


def network(role, seed=0, **plan):
    labels = {"labels": ORGANS_AND_TUMOR} if role == "tumor" else {}
    made = small_plan(**labels, **plan)
    return role, made, random_weights(made, seed), {"seed": seed}


def four(**tumor_2):
    return [
        network("organ", 4),
        network("tumor", 2),
        network("tumor", 3, **tumor_2),
        network("coarse", 1),
    ]


@pytest.fixture
def bundle(tmp_path):
    return write_bundle(tmp_path / "b", "test", four(), Cascade(), {"seed": 7}, "not for use")


def test_a_bundle_gives_back_what_was_put_in(bundle):
    manifest = read_manifest(bundle)
    assert [(s.role, s.name, s.weights) for s in manifest.stages] == [
        ("coarse", "coarse", "coarse.safetensors"),
        ("tumor", "tumor_1", "tumor_1.safetensors"),
        ("tumor", "tumor_2", "tumor_2.safetensors"),
        ("organ", "organ", "organ.safetensors"),
    ]
    assert manifest.schema_version == 1
    assert manifest.notice == "not for use"
    assert manifest.provenance == {"seed": 7}
    assert [s.provenance["seed"] for s in manifest.stages] == [1, 2, 3, 4]
    assert manifest.cascade == Cascade()
    assert manifest.labels[14] == "tumor"
    stages = load_stages(bundle, manifest, ("coarse", "tumor", "organ"), CPU)
    loaded = [stages.coarse, *stages.tumor, stages.organ]
    assert [s.name for s in loaded] == ["coarse", "tumor_1", "tumor_2", "organ"]
    for stage, seed in zip(loaded, (1, 2, 3, 4), strict=True):
        expected = load_network(stage.plan, random_weights(stage.plan, seed), CPU)
        assert torch.equal(stage.network(image()), expected(image()))


def test_nothing_but_the_bundle_is_left_behind(bundle):
    assert [p.name for p in bundle.parent.iterdir()] == ["b"]
    assert {p.suffix for p in bundle.iterdir()} == {".json", ".safetensors"}


def test_only_the_wanted_stages_are_loaded(bundle):
    stages = load_stages(bundle, read_manifest(bundle), ("coarse",), CPU, decoder_stop=1)
    assert stages.roles == ("coarse",)
    whole = load_stages(bundle, read_manifest(bundle), ("coarse",), CPU)
    assert not torch.allclose(stages.coarse.network(image()), whole.coarse.network(image()))


@pytest.mark.parametrize("position", [0, 300, -1])
def test_a_flipped_bit_is_refused(bundle, position):
    file = bundle / "tumor_2.safetensors"
    contents = bytearray(file.read_bytes())
    contents[position] ^= 1
    file.write_bytes(contents)
    with pytest.raises(ModelError, match=r"tumor_2\.safetensors: sha256 is"):
        load_stages(bundle, read_manifest(bundle), ("tumor",), CPU)
    assert load_stages(bundle, read_manifest(bundle), ("organ",), CPU).organ is not None


def test_a_missing_weights_file_is_refused(bundle):
    (bundle / "organ.safetensors").unlink()
    with pytest.raises(ModelError, match=r"organ\.safetensors: cannot be read"):
        load_stages(bundle, read_manifest(bundle), ("organ",), CPU)


def test_the_digest_follows_weights_and_values(tmp_path):
    same = [write_bundle(tmp_path / n, "m", four(), Cascade()) for n in ("a", "b")]
    other_weights = write_bundle(
        tmp_path / "c", "m", [*four()[:3], network("coarse", 9)], Cascade()
    )
    other_values = write_bundle(tmp_path / "d", "m", four(), Cascade(mirror=True))
    assert digest(same[0]) == digest(same[1])
    assert len({digest(same[0]), digest(other_weights), digest(other_values)}) == 3


@pytest.mark.parametrize("roles", [("coarse",), ("tumor",), ("organ",), ("coarse", "tumor")])
def test_a_cascade_is_narrowed_to_what_is_there(tmp_path, roles):
    path = write_bundle(tmp_path / "b", "part", [network(role) for role in roles], Cascade())
    manifest = read_manifest(path)
    assert manifest.cascade.stages == manifest.roles == roles
    assert load_stages(path, manifest, roles, CPU).roles == roles


def test_a_missing_stage_that_is_asked_for_is_refused(tmp_path):
    path = write_bundle(tmp_path / "b", "part", [network("organ")], Cascade())
    with pytest.raises(ModelError, match="no coarse network; set stages=organ"):
        load_stages(path, read_manifest(path), ("coarse", "organ"), CPU)


def test_a_recipe_without_any_of_the_networks_is_refused(tmp_path):
    with pytest.raises(ModelError, match="none of the recipe's stages"):
        write_bundle(tmp_path / "b", "part", [network("organ")], Cascade(stages=("coarse",)))


@pytest.mark.parametrize("merge", [Merge(tumor="mean"), Merge(organ="mean")])
def test_a_mean_needs_equal_grids(tmp_path, merge):
    assert write_bundle(tmp_path / "a", "m", four(), Cascade(merge=merge)).is_dir()
    other_grid = four(spacing_mm=(3.0, 2.5, 2.5))
    with pytest.raises(ModelError, match="same spacing"):
        write_bundle(tmp_path / "b", "m", other_grid, Cascade(merge=merge))
    path = write_bundle(tmp_path / "c", "m", other_grid, Cascade())
    with pytest.raises(ModelError, match="same spacing"):
        check_cascade(read_manifest(path), Cascade(merge=merge))


def test_a_head_that_was_not_trained_is_refused(tmp_path, bundle):
    with pytest.raises(ModelError, match="decoder_stop = 2"):
        write_bundle(tmp_path / "other", "m", four(), Cascade(decoder_stop=2))
    with pytest.raises(ModelError, match="decoder_stop = 2"):
        load_stages(bundle, read_manifest(bundle), ("coarse",), CPU, decoder_stop=2)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("roles", [("coarse", "coarse"), ("tumor",) * 3, ("organ", "organ")])
def test_too_many_networks_of_a_role_are_refused(tmp_path, roles):
    with pytest.raises(ModelError, match="at most"):
        write_bundle(tmp_path / "b", "many", [network(role) for role in roles], Cascade())
    assert list(tmp_path.iterdir()) == []


def broken_weights(kind):
    weights = random_weights(small_plan())
    name = "encoder.stages.0.0.convs.0.conv.weight"
    if kind == "missing":
        del weights[name]
    elif kind == "shape":
        weights[name] = weights[name][:2]
    elif kind == "unknown":
        weights["surprise"] = torch.zeros(1)
    else:
        weights[name][0, 0, 0, 0, 0] = float("nan")
    return weights


@pytest.mark.parametrize(
    ("kind", "message"),
    [("missing", "missing"), ("shape", "another shape"), ("unknown", "surprise"), ("nan", "NaN")],
)
def test_weights_that_do_not_serve_are_refused(tmp_path, kind, message):
    broken = ("organ", small_plan(), broken_weights(kind), {})
    with pytest.raises(ModelError, match=f"stage organ: .*{message}"):
        write_bundle(tmp_path / "b", "m", [network("coarse"), broken], Cascade())
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_overwritten_only_when_asked(bundle):
    before = digest(bundle)
    with pytest.raises(UsageError, match="exists"):
        write_bundle(bundle, "other", [network("organ")], Cascade())
    assert digest(bundle) == before
    write_bundle(bundle, "other", [network("organ")], Cascade(), overwrite=True)
    assert read_manifest(bundle).name == "other"
    assert sorted(p.name for p in bundle.iterdir()) == ["bundle.json", "organ.safetensors"]
    assert [p.name for p in bundle.parent.iterdir()] == ["b"]


def test_what_is_no_bundle_is_never_overwritten(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "text.tex").write_text("x")
    with pytest.raises(UsageError, match="not a bundle"):
        write_bundle(tmp_path / "thesis", "m", [network("organ")], Cascade(), overwrite=True)
    assert (tmp_path / "thesis" / "text.tex").read_text() == "x"


def change(bundle, edit):
    values = json.loads((bundle / "bundle.json").read_text())
    edit(values)
    (bundle / "bundle.json").write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("key", "value"),
    [("weights", "../../secret.safetensors"), ("weights", "/etc/passwd"), ("sha256", "0")],
)
def test_a_manifest_names_files_beside_it_alone(bundle, key, value):
    change(bundle, lambda values: values["stages"][0].update({key: value}))
    with pytest.raises(ModelError, match=f"stages.0.{key}"):
        read_manifest(bundle)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("schema_version", 2, "schema_version.*another version"),
        ("surprise", 1, "surprise"),
        ("stages", [], "stages"),
        ("labels", {"0": "background", "1": "spleen"}, "label table"),
    ],
)
def test_a_manifest_of_another_kind_is_refused(bundle, key, value, message):
    change(bundle, lambda values: values.update({key: value}))
    with pytest.raises(ModelError, match=message):
        read_manifest(bundle)


@pytest.mark.parametrize("contents", [None, b"{", b"\xff\xfe"])
def test_a_folder_without_a_manifest_is_no_bundle(tmp_path, contents):
    if contents is not None:
        (tmp_path / "bundle.json").write_bytes(contents)
    with pytest.raises(ModelError, match="bundle"):
        read_manifest(tmp_path)


def test_the_default_bundle_lies_in_the_package():
    assert default_bundle() == SOURCE / "models" / "demo"


def unsafe_calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [a.name for a in node.names] + [getattr(node, "module", None) or ""]
            yield from (m for m in modules if m.split(".")[0] in {"pickle", "joblib", "dill"})
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            unpickles = any(k.arg == "allow_pickle" for k in node.keywords)
            if called in {"torch.load", "eval", "exec", "yaml.load"} or unpickles:
                yield called


def test_one_file_alone_reads_what_could_run_code():
    found = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if list(unsafe_calls(ast.parse(path.read_text(encoding="utf-8"))))
    }
    assert found == {"bundle/checkpoints.py"}
