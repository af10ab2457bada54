"""What ``bundle.json`` says: the networks of a bundle, their plans and how they work together."""

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from cfseg.errors import ModelError
from cfseg.foreign import problem
from cfseg.labels import NAMES
from cfseg.plan import ROLES, Frozen, Role, StagePlan
from cfseg.recipes.recipe import Cascade

MANIFEST = "bundle.json"
LABEL_TABLE = {0: "background"} | NAMES
AT_MOST: dict[Role, int] = {"coarse": 1, "tumor": 2, "organ": 1}


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Int8Graph(Frozen):
    """An OpenVINO graph with int8 weights and activations, made of a stage's network.

    Attributes:
        graph: name of the XML file beside the manifest.
        graph_sha256: of that file.
        weights: name of the file with the weights.
        weights_sha256: of that file.
        decoder_stop: that the graph was made for.
    """

    graph: Annotated[str, Field(pattern=r"^[a-z0-9_]+\.int8\.xml$")]
    graph_sha256: Sha256
    weights: Annotated[str, Field(pattern=r"^[a-z0-9_]+\.int8\.bin$")]
    weights_sha256: Sha256
    decoder_stop: int = 0


class Int8Check(Frozen):
    """What int8 was found to cost.

    Attributes:
        cases: that were segmented both ways.
        dsc_fp32: mean DSC over cases and the labels in them, 0 to 1.
        dsc_int8: the same in int8.
        dsc_loss: largest loss that was allowed.
    """

    cases: Annotated[int, Field(ge=1)]
    dsc_fp32: float
    dsc_int8: float
    dsc_loss: float


class StageEntry(Frozen):
    """One network of a bundle.

    Attributes:
        role: what it is used for.
        name: ``coarse``, ``tumor_1``, ``tumor_2`` or ``organ``.
        plan: all that predicting needs but the weights.
        weights: name of the safetensors file beside the manifest.
        sha256: of that file.
        int8: the network in int8, if it was made and found good enough.
        provenance: where the network comes from.
    """

    role: Role
    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    plan: StagePlan
    weights: Annotated[str, Field(pattern=r"^[a-z0-9_]+\.safetensors$")]
    sha256: Sha256
    int8: Int8Graph | None = None
    provenance: dict[str, Any] = Field(default_factory=dict)


class Manifest(Frozen):
    """The contents of ``bundle.json``.

    Attributes:
        schema_version: of this format.
        name: of the model, one line.
        labels: name of each id; the table of all bundles of this version.
        stages: the networks, coarse first, organ last.
        cascade: how they work together; its ``stages`` are among those that the bundle has.
        int8_check: what the int8 networks are worth, if there are any.
        provenance: how the bundle was made.
        notice: what is said with every output; may be empty.
    """

    schema_version: Literal[1] = 1
    name: Annotated[str, Field(max_length=200)]
    labels: dict[int, str] = Field(default_factory=lambda: dict(LABEL_TABLE))
    stages: Annotated[tuple[StageEntry, ...], Field(min_length=1)]
    cascade: Cascade = Cascade()
    int8_check: Int8Check | None = None
    provenance: dict[str, Any] = Field(default_factory=dict)
    notice: Annotated[str, Field(max_length=5000)] = ""

    @field_validator("name")
    @classmethod
    def _is_one_line(cls, name: str) -> str:
        if not name.isprintable():
            raise ValueError("the name has line breaks or control characters")
        return name

    @field_validator("labels")
    @classmethod
    def _is_the_table(cls, labels: dict[int, str]) -> dict[int, str]:
        if labels != LABEL_TABLE:
            raise ValueError("the label table is not that of this cfseg")
        return labels

    @model_validator(mode="after")
    def _stages_fit(self) -> Self:
        for role, most in AT_MOST.items():
            if sum(entry.role == role for entry in self.stages) > most:
                raise ValueError(f"at most {most} {role} network(s) make a cascade")
        for attribute in ("name", "weights"):
            if len({getattr(entry, attribute) for entry in self.stages}) < len(self.stages):
                raise ValueError(f"two stages have the same {attribute}")
        return self

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles that the bundle has a network for, in the order of the cascade."""
        present = {entry.role for entry in self.stages}
        return tuple(role for role in ROLES if role in present)

    def plans(self, role: Role) -> tuple[StagePlan, ...]:
        """Return the plans of the networks with a role."""
        return tuple(entry.plan for entry in self.stages if entry.role == role)


def default_bundle() -> Path:
    """Return the folder of the model that comes with cfseg."""
    return Path(__file__).parent.parent / "models" / "demo"


def read_manifest(path: Path) -> Manifest:
    """Read and check ``bundle.json``.

    Args:
        path: folder of the bundle.

    Raises:
        ModelError: there is no bundle, or it is damaged, or made by another version of cfseg.
    """
    if not path.is_dir():
        raise ModelError(f"there is no folder {path}; give that of a bundle")
    try:
        text = (path / MANIFEST).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(
            f"{path} is not a bundle: {MANIFEST} cannot be read ({type(error).__name__}); "
            "give the folder that 'cfseg bundle create' or 'cfseg train' wrote"
        ) from error
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        raise ModelError(
            f"{path / MANIFEST}: {problem(error)}; the bundle is damaged or was made by another "
            "version of cfseg: make it again"
        ) from error
    check_cascade(manifest, manifest.cascade)
    return manifest


def check_cascade(manifest: Manifest, cascade: Cascade) -> None:
    """Check that the bundle's networks can do what a cascade asks of them.

    Args:
        manifest: of the bundle.
        cascade: the bundle's own, or one with overrides.

    Raises:
        ModelError: a stage is missing; ``mean`` is asked of networks on different grids.
    """
    missing = [role for role in cascade.stages if role not in manifest.roles]
    if missing:
        raise ModelError(
            f"bundle {manifest.name} has no {' and no '.join(missing)} network; "
            f"set stages={','.join(manifest.roles)}, or use another bundle"
        )
    grids = {(p.spacing_mm, p.transpose, p.labels) for p in manifest.plans("tumor")}
    if "tumor" in cascade.stages and len(grids) > 1:
        for key in ("tumor", "organ"):
            if getattr(cascade.merge, key) == "mean":
                raise ModelError(
                    f"bundle {manifest.name}: merge.{key}=mean needs two tumor networks with the "
                    "same spacing and labels, and these differ; use merge.tumor=union and "
                    "merge.organ=weight2"
                )


def sha256_of(contents: bytes) -> str:
    """Return the sha256 of a file's contents, as the manifest has it."""
    return hashlib.sha256(contents).hexdigest()


def digest(path: Path) -> str:
    """Return the sha256 that identifies a bundle: its manifest and its weights.

    Raises:
        ModelError: see :func:`read_manifest`.
    """
    manifest = read_manifest(path)
    whole = hashlib.sha256((path / MANIFEST).read_bytes())
    for entry in manifest.stages:
        whole.update(entry.sha256.encode())
    return whole.hexdigest()
