"""Mutants of models: bundles and nnU-Net's folders."""

import io
import json
import random
import tempfile
import zipfile
from functools import cache
from pathlib import Path

from small_models import (
    NEW_NETWORK,
    OLD_NETWORK,
    ORGANS,
    ORGANS_AND_TUMOR,
    dataset_json,
    plans_json,
    random_weights,
    small_plan,
    write_model_folder,
)
from tests.fuzz.damage import damaged

from cfseg.bundle.bundle import write_bundle
from cfseg.bundle.manifest import MANIFEST, sha256_of
from cfseg.recipes.recipe import Cascade
from mutants import mutant

CHECKPOINT = "fold_0/checkpoint_final.pth"


@cache
def bundle_files() -> dict[str, bytes]:
    """A bundle of three small networks, by file."""
    labels = {"coarse": ORGANS, "tumor": ORGANS_AND_TUMOR, "organ": ORGANS}
    plans = {role: small_plan(ids) for role, ids in labels.items()}
    networks = [(role, plan, random_weights(plan), {}) for role, plan in plans.items()]
    with tempfile.TemporaryDirectory() as folder:
        made = write_bundle(Path(folder) / "b", "small", networks, Cascade(), {"by": ["x"]}, "No.")
        return {path.name: path.read_bytes() for path in made.iterdir()}


@cache
def nnunet_files() -> dict[str, bytes]:
    """nnU-Net's folder of a small network, by file."""
    with tempfile.TemporaryDirectory() as folder:
        made = write_model_folder(Path(folder), small_plan())
        files = [path for path in made.rglob("*") if path.is_file()]
        return {path.relative_to(made).as_posix(): path.read_bytes() for path in files}


def manifest(folder: Path, rng: random.Random) -> Path:
    """Write a bundle with a damaged manifest."""
    values = json.loads(bundle_files()[MANIFEST])
    return _put(folder, bundle_files() | {MANIFEST: mutant(values, rng.getrandbits(32))})


def weights(folder: Path, rng: random.Random) -> Path:
    """Write a bundle with a damaged file of weights, which the manifest takes for whole."""
    name = "coarse.safetensors"
    data = bundle_files()[name]
    length = int.from_bytes(data[:8], "little")
    if rng.random() < 0.5:
        head = mutant(json.loads(data[8 : 8 + length]), rng.getrandbits(32))
        made = len(head).to_bytes(8, "little") + head + data[8 + length :]
    else:
        made = damaged(data, rng, head=8 + length, other=bundle_files()["tumor_1.safetensors"])
    values = json.loads(bundle_files()[MANIFEST])
    if rng.random() < 0.95:
        values["stages"][0]["sha256"] = sha256_of(made)
    return _put(folder, bundle_files() | {MANIFEST: json.dumps(values).encode(), name: made})


def nnunet(folder: Path, rng: random.Random) -> Path:
    """Write nnU-Net's folder with a damaged description."""
    values = {
        "plans.json": plans_json(rng.choice((OLD_NETWORK, NEW_NETWORK))),
        "dataset.json": dataset_json(),
    }
    files = {name: json.dumps(content).encode() for name, content in values.items()}
    broken = rng.choice(("plans.json", "plans.json", "dataset.json"))
    return _put(
        folder, nnunet_files() | files | {broken: mutant(values[broken], rng.getrandbits(32))}
    )


def checkpoint(folder: Path, rng: random.Random) -> Path:
    """Write nnU-Net's folder with a damaged checkpoint: its bytes, or an entry of its archive."""
    data = nnunet_files()[CHECKPOINT]
    made = damaged(data, rng, head=2000) if rng.random() < 0.4 else _repacked(data, rng)
    return _put(folder, nnunet_files() | {CHECKPOINT: made})


def _repacked(data: bytes, rng: random.Random) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as before, zipfile.ZipFile(made, "w") as after:
        entries = before.infolist()
        broken = rng.choice([it for it in entries if it.filename.endswith("data.pkl")] or entries)
        broken = rng.choice((broken, broken, rng.choice(entries)))
        for entry in entries:
            content = before.read(entry)
            content = damaged(content, rng) if entry is broken else content
            after.writestr(zipfile.ZipInfo(entry.filename), content)  # without the time of today
    return made.getvalue()


def _put(folder: Path, files: dict[str, bytes]) -> Path:
    model = folder / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    for name, data in files.items():
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_bytes(data)
    return model
