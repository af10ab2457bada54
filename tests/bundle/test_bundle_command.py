import json

import pytest
import typer
from small_models import ORGANS_AND_TUMOR, small_plan, write_model_folder
from test_nnunet_v1 import write_four
from typer.testing import CliRunner

from cfseg.bundle.manifest import read_manifest
from cfseg.cli.bundle import bundle_app
from cfseg.errors import ModelError, UsageError
from cfseg.recipes.recipe import load

app = typer.Typer()
app.add_typer(bundle_app, name="bundle")


def run(*arguments):
    return CliRunner().invoke(app, ["bundle", *map(str, arguments)], env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    top = tmp_path_factory.mktemp("models")
    labels = {"coarse": None, "tumor_1": ORGANS_AND_TUMOR, "tumor_2": ORGANS_AND_TUMOR}
    return {
        name: write_model_folder(top / name, small_plan(ids or tuple(range(14))), seed=seed)
        for seed, (name, ids) in enumerate((labels | {"organ": None}).items())
    }


def create(folders, out, *more):
    return run(
        "create", "--coarse", folders["coarse"], "--tumor", folders["tumor_1"],
        "--tumor", folders["tumor_2"], "--organ", folders["organ"], "-o", out, *more,
    )  # fmt: skip


def test_four_folders_become_a_bundle(tmp_path, folders):
    assert create(folders, tmp_path / "mine").exit_code == 0
    manifest = read_manifest(tmp_path / "mine")
    assert manifest.name == "mine"
    assert [s.name for s in manifest.stages] == ["coarse", "tumor_1", "tumor_2", "organ"]
    assert manifest.cascade == load("paper").cascade
    assert manifest.stages[1].provenance["checkpoint"] == "fold_0/checkpoint_final.pth"
    assert str(tmp_path) not in manifest.model_dump_json()


def test_name_notice_and_recipe_are_taken_over(tmp_path, folders):
    recipe = tmp_path / "mine.toml"
    recipe.write_text('name = "mine"\n[cascade.region]\nmargin_mm = 33\n')
    made = run(
        "create", "--organ", folders["organ"], "-o", tmp_path / "b", "--recipe", recipe,
        "--name", "a name", "--notice", "for tests",
    )  # fmt: skip
    assert made.exit_code == 0
    manifest = read_manifest(tmp_path / "b")
    assert (manifest.name, manifest.notice) == ("a name", "for tests")
    assert manifest.cascade.region.margin_mm == 33
    assert manifest.cascade.stages == ("organ",)
    assert manifest.provenance["recipe"] == "mine"


def test_an_existing_bundle_is_kept_unless_told(tmp_path, folders):
    organ = ("create", "--organ", folders["organ"], "-o", tmp_path / "b")
    assert run(*organ).exit_code == 0
    assert isinstance(run(*organ).exception, UsageError)
    assert run(*organ, "--overwrite").exit_code == 0


def test_no_network_no_bundle(tmp_path):
    assert isinstance(run("create", "-o", tmp_path / "b").exception, UsageError)


def test_a_wrong_role_is_refused(tmp_path, folders):
    made = run("create", "--tumor", folders["organ"], "-o", tmp_path / "b")
    assert isinstance(made.exception, ModelError)
    assert not (tmp_path / "b").exists()


def test_show_names_stages_and_values(tmp_path, folders):
    create(folders, tmp_path / "b", "--notice", "for tests")
    shown = run("show", tmp_path / "b")
    assert shown.exit_code == 0
    for part in ("coarse", "tumor_2", "3 2 2", "8 16 16", "margin_mm=20.0", "notice: for tests"):
        assert part in shown.output


def test_show_as_json_is_the_manifest(tmp_path, folders):
    create(folders, tmp_path / "b")
    shown = run("show", tmp_path / "b", "--json")
    assert json.loads(shown.stdout) == json.loads((tmp_path / "b" / "bundle.json").read_text())


def test_the_authors_files_become_a_bundle(tmp_path):
    write_four(tmp_path)
    made = run("import-v1", tmp_path, "-o", tmp_path / "authors")
    assert made.exit_code == 0, made.exception
    manifest = read_manifest(tmp_path / "authors")
    assert [s.name for s in manifest.stages] == ["coarse", "tumor_1", "tumor_2", "organ"]
    assert manifest.cascade == load("authors").cascade
    assert "Zenodo record 8372563" in manifest.notice


def test_importing_needs_the_published_values(tmp_path):
    made = run("import-v1", tmp_path, "-o", tmp_path / "b", "--recipe", "paper")
    assert isinstance(made.exception, UsageError)
