"""A bundle: the networks of a cascade in one folder, and everything needed to run them.

``bundle.json`` is a :class:`~cfseg.bundle.manifest.Manifest`; beside it lies one ``*.safetensors``
file per network. No pickle is ever read to predict, and a weights file whose sha256 differs from
the manifest's is refused: a flipped bit would load without a complaint.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from pydantic import ValidationError

from cfseg.bundle.files import new_bundle, read_checked, write_manifest
from cfseg.bundle.int8 import check_int8, load_int8
from cfseg.bundle.manifest import (
    AT_MOST,
    Manifest,
    StageEntry,
    check_cascade,
    default_bundle,
    digest,
    read_manifest,
    sha256_of,
)
from cfseg.errors import ModelError
from cfseg.foreign import brief, problem
from cfseg.inference.cascade import Stages
from cfseg.inference.predictor import Stage
from cfseg.networks.backends import Backend, OnDemand, Precision, Runner, load
from cfseg.networks.build import build_network, fitting_weights
from cfseg.plan import ROLES, Role, StagePlan
from cfseg.recipes.recipe import Cascade

__all__ = [
    "Manifest",
    "Network",
    "StageEntry",
    "check_cascade",
    "default_bundle",
    "digest",
    "load_stages",
    "read_manifest",
    "read_weights",
    "write_bundle",
]

MOST_HEADER_BYTES = 4 * 2**20
"""Of a safetensors file; the largest network that a plan may describe has less than 1 MB."""

Weights = Mapping[str, torch.Tensor]
Network = tuple[Role, StagePlan, Weights, Mapping[str, Any]]
"""Role, plan, tensors by state-dict name, provenance."""


def load_stages(
    path: Path,
    manifest: Manifest,
    roles: Sequence[Role],
    device: torch.device,
    decoder_stop: int = 0,
    backend: Backend = "torch",
    precision: Precision = "fp32",
) -> Stages:
    """Return the stages of a bundle, whose networks are checked now and loaded when first called.

    Args:
        path: folder of the bundle.
        manifest: of that folder.
        roles: the stages wanted.
        device: where the networks run.
        decoder_stop: of the coarse network, see :class:`cfseg.recipes.recipe.Cascade`.
        backend: what runs them, see :mod:`cfseg.networks.backends`.
        precision: ``int8`` takes the graphs that ``cfseg bundle quantize`` made.

    Raises:
        ModelError: a wanted stage is missing; a file is missing, damaged or not the one that the
            manifest names; the coarse network cannot stop there.
    """
    check_cascade(manifest, manifest.cascade.model_copy(update={"stages": tuple(roles)}))
    loaded = [
        _stage(
            path, entry, device, decoder_stop if entry.role == "coarse" else 0, backend, precision
        )
        for entry in manifest.stages
        if entry.role in roles
    ]
    by_role = {role: tuple(s for s in loaded if s.role == role) for role in ROLES}
    return Stages(
        coarse=next(iter(by_role["coarse"]), None),
        tumor=by_role["tumor"],
        organ=next(iter(by_role["organ"]), None),
    )


def _stage(
    path: Path,
    entry: StageEntry,
    device: torch.device,
    decoder_stop: int,
    backend: Backend,
    precision: Precision,
) -> Stage:
    def network() -> Runner:
        if precision == "int8" and entry.int8 is not None:
            return load_int8(path, entry.int8)
        weights = read_weights(path / entry.weights, entry.sha256)
        return load(entry.plan, weights, device, decoder_stop, backend)

    try:
        if precision == "int8":
            _check_int8(path, entry, decoder_stop)
        else:
            weights = read_weights(path / entry.weights, entry.sha256)
            fitting_weights(entry.plan, weights, decoder_stop)
    except ModelError as error:
        raise ModelError(f"{path.name}, stage {entry.name}: {error.message}") from error
    return Stage(entry.role, entry.name, entry.plan, OnDemand(network), device, backend)


def _check_int8(path: Path, entry: StageEntry, decoder_stop: int) -> None:
    if entry.int8 is None:
        raise ModelError("it has no int8 form; make one with 'cfseg bundle quantize'")
    if entry.int8.decoder_stop != decoder_stop:
        raise ModelError(
            f"its int8 form was made for decoder_stop = {entry.int8.decoder_stop}, not "
            f"{decoder_stop}; make it again with 'cfseg bundle quantize'"
        )
    check_int8(path, entry.int8)


def read_weights(path: Path, sha256: str) -> dict[str, torch.Tensor]:
    """Read one safetensors file whose contents have this sha256.

    Raises:
        ModelError: the file is missing, damaged or another one, or holds a tensor that has NaN or
            infinity or is none of weights.
    """
    contents = read_checked(path, sha256)
    if int.from_bytes(contents[:8], "little") > MOST_HEADER_BYTES:
        raise ModelError(f"{path}: its list of tensors is too long for a network; make it again")
    try:
        weights = dict(safetensors.torch.load(contents))
    except (safetensors.SafetensorError, KeyError) as error:
        # A KeyError is a type of number that torch does not have.
        raise ModelError(
            f"{path}: not a safetensors file ({brief(str(error))}); make it again"
        ) from error
    if wrong := not_weights(weights):
        raise ModelError(f"{path}: {wrong}; make the bundle again")
    return weights


def not_weights(weights: Weights) -> str:
    """Return which tensor cannot be a network's weights and why; empty if all can.

    Looking at the four networks that come with cfseg takes 8 ms in all, on one core.
    """
    for key, tensor in weights.items():
        if not tensor.is_floating_point():
            return f"{key[:200]} holds {tensor.dtype}, not the numbers of a network"
        # As the network will hold them: what is finite in float64 need not be in float32.
        if not bool(tensor.float().isfinite().all()):
            return f"{key[:200]} has NaN or infinite weights"
    return ""


def write_bundle(
    path: Path,
    name: str,
    networks: Sequence[Network],
    cascade: Cascade,
    provenance: Mapping[str, Any] | None = None,
    notice: str = "",
    *,
    overwrite: bool = False,
) -> Path:
    """Write a bundle. It appears whole or not at all.

    A cascade that asks for stages without a network is narrowed to those that are there; what the
    bundle then says it can do, it can.

    Args:
        path: folder to make.
        name: of the model.
        networks: role, plan, weights and provenance of each; the first tumor network becomes
            ``tumor_1``.
        cascade: how they work together.
        provenance: how the bundle was made; JSON.
        notice: to be said with every output.
        overwrite: replace a bundle of this path.

    Returns:
        The path.

    Raises:
        UsageError: the path exists and ``overwrite`` is not set, or it is not a bundle.
        ModelError: weights do not fit their plan, or the networks do not make this cascade.
    """
    with new_bundle(path, overwrite=overwrite) as folder:
        entries = [_write_stage(folder, *item) for item in _named(networks)]
        manifest = _manifest(name, entries, cascade, dict(provenance or {}), notice)
        coarse = manifest.plans("coarse")
        if coarse and "coarse" in manifest.cascade.stages:
            with torch.device("meta"):
                build_network(coarse[0], manifest.cascade.decoder_stop)
        write_manifest(folder, manifest)
    return path


def _named(networks: Sequence[Network]) -> list[tuple[str, Network]]:
    """Give the networks their names, in the order of the cascade."""
    named: list[tuple[str, Network]] = []
    for role in ROLES:
        same = [network for network in networks if network[0] == role]
        for number, network in enumerate(same, 1):
            named.append((f"{role}_{number}" if AT_MOST[role] > 1 else role, network))
    return named


def _write_stage(folder: Path, name: str, network: Network) -> StageEntry:
    role, plan, weights, provenance = network
    try:
        fitting_weights(plan, weights)
    except ModelError as error:
        raise ModelError(f"stage {name}: {error.message}") from error
    if wrong := not_weights(weights):
        raise ModelError(f"stage {name}: {wrong}; train it again")
    # Copies: safetensors takes no two names for one place in memory.
    tensors = {
        key: t.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, t in sorted(weights.items())
    }
    contents = safetensors.torch.save(tensors)
    file = folder / f"{name}.safetensors"
    file.write_bytes(contents)
    return StageEntry(
        role=role,
        name=name,
        plan=plan,
        weights=file.name,
        sha256=sha256_of(contents),
        provenance=dict(provenance),
    )


def _manifest(
    name: str,
    entries: Sequence[StageEntry],
    cascade: Cascade,
    provenance: dict[str, Any],
    notice: str,
) -> Manifest:
    present = {entry.role for entry in entries}
    stages = tuple(role for role in cascade.stages if role in present)
    if not stages:
        raise ModelError(
            f"none of the recipe's stages ({', '.join(cascade.stages)}) has a network; "
            "give one, or choose another recipe"
        )
    narrowed = cascade.model_copy(update={"stages": stages})
    try:
        manifest = Manifest(
            name=name,
            stages=tuple(entries),
            cascade=narrowed,
            provenance=provenance,
            notice=notice,
        )
    except ValidationError as error:
        raise ModelError(f"bundle {brief(name)}: {problem(error)}") from error
    check_cascade(manifest, narrowed)
    return manifest
