"""A recipe: every number of the method, read from TOML and checked.

``paper`` holds the paper's text, ``authors`` the values of the authors' released code, ``demo`` a
small model that trains on two CPU cores. ``[cascade]`` says how to predict, ``[training]`` how
the networks are trained, ``[v1]`` what published nnU-Net v1 files do not say themselves.
"""

import difflib
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeGuard, TypeVar, get_args

from pydantic import Field, ValidationError, field_validator, model_validator

from cfseg.errors import UsageError
from cfseg.foreign import brief, check_values, problem
from cfseg.labels import ORGAN_IDS
from cfseg.plan import ROLES, Frozen, PositiveMm, Role
from cfseg.recipes.training import Fraction, Training
from cfseg.recipes.v1 import V1Values

M = TypeVar("M", bound=Frozen)
OrganId = Annotated[int, Field(ge=1, le=13)]
Pad = Literal["zero", "edge"]


class Step(Frozen):
    """Distance between windows as a fraction of the patch, per stage."""

    coarse: Fraction = 1.0
    tumor: Fraction = 0.5
    organ: Fraction = 0.5


class Region(Frozen):
    """How the abdominal region follows from the coarse mask (paper 2.2).

    Attributes:
        margin_mm: added on every side of the bounding box of the organs.
        ignore: organs of the coarse mask that do not count.
        centroid_mm: semi-axes (z, y, x) of an ellipsoid around the liver's centroid; connected
            parts of the coarse mask whose centroid lies outside do not count. None: all count.
        min_organs_ml: a coarse mask with less is implausible, the body is taken instead.
        max_body_fraction: a coarse mask that fills more of the body is implausible.
    """

    margin_mm: Annotated[float, Field(ge=0)] = 20.0
    ignore: tuple[OrganId, ...] = ()
    centroid_mm: tuple[PositiveMm, PositiveMm, PositiveMm] | None = None
    min_organs_ml: Annotated[float, Field(ge=0)] = 100.0
    max_body_fraction: Fraction = 0.6


class Merge(Frozen):
    """How the masks of the two tumor weights and of the organ model become one (paper 2.2).

    Attributes:
        tumor: ``union`` of the two weights' tumor masks, or tumor where the ``mean`` of their
            probabilities says so.
        organ: the tumor model's organs, used where no organ model runs: those of the second
            weight, or those of the mean of the probabilities.
    """

    tumor: Literal["union", "mean"] = "union"
    organ: Literal["weight2", "mean"] = "weight2"


class Clean(Frozen):
    """Which connected components stay (paper 2.3).

    Attributes:
        labels: organs that are cleaned.
        rule: ``largest`` keeps the largest; ``centroid`` keeps the one with the greatest
            ``volume / (1 + distance / centroid_mm)``, where distance is from its centroid to
            the centroid of all organs.
        centroid_mm: scale of the ``centroid`` rule.
        min_tumor_ml: tumors with less than this are dropped; 0 leaves all, as the paper does.
    """

    labels: tuple[OrganId, ...] = ORGAN_IDS
    rule: Literal["largest", "centroid"] = "largest"
    centroid_mm: PositiveMm = 100.0
    min_tumor_ml: Annotated[float, Field(ge=0)] = 0.0


class Cascade(Frozen):
    """How the stages work together on one scan.

    Attributes:
        stages: ``coarse`` | ``coarse,tumor`` (the paper's two-stage method) |
            ``coarse,tumor,organ``, or any other non-empty part of it; without ``coarse`` the
            region is the body.
        step: per stage.
        gaussian: weight the windows by a Gaussian when they are put together.
        mirror: average over the mirror images of each window (8 times the work).
        pad: what surrounds a region smaller than a window: ``zero`` (the mean intensity, as in
            nnU-Net's training) or its own ``edge``.
        decoder_stop: how many of the finest decoder stages the coarse network leaves out.
        region: from coarse mask to region.
        merge: of tumor and organ masks.
        clean: of organs.
        int8_dsc_loss: mean DSC that int8 networks may lose on the scans that they are checked
            with, 0 to 1; with more they are not kept.
    """

    stages: tuple[Role, ...] = ROLES
    step: Step = Step()
    gaussian: bool = False
    mirror: bool = False
    pad: Pad = "zero"
    decoder_stop: Annotated[int, Field(ge=0, le=2)] = 0
    region: Region = Region()
    merge: Merge = Merge()
    clean: Clean = Clean()
    int8_dsc_loss: Annotated[float, Field(ge=0, le=1)] = 0.005

    @field_validator("stages", mode="before")
    @classmethod
    def _one_word_is_a_list(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _stages_in_order(self) -> Self:
        if not self.stages or self.stages != tuple(r for r in ROLES if r in self.stages):
            raise ValueError("stages is 'coarse', 'coarse,tumor', 'coarse,tumor,organ' or a part")
        return self


class Recipe(Frozen):
    """A named set of values."""

    name: str
    description: str = ""
    cascade: Cascade = Cascade()
    training: Training | None = None
    v1: V1Values | None = None


def names() -> tuple[str, ...]:
    """Return the names of the recipes that come with cfseg."""
    files = resources.files(__package__).iterdir()
    return tuple(sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml")))


def load(name_or_path: str | Path, overrides: tuple[str, ...] = ()) -> Recipe:
    """Return a recipe by name or from a TOML file, with ``KEY=VALUE`` overrides applied.

    Raises:
        UsageError: no such recipe, unreadable TOML, an unknown key or a value out of range.
    """
    values = _read(name_or_path)
    for override in overrides:
        _set(values, override)
    return _validated(Recipe, values, f"recipe {name_or_path}")


def with_overrides(cascade: Cascade, overrides: tuple[str, ...]) -> Cascade:
    """Return ``cascade`` with ``KEY=VALUE`` overrides such as ``region.margin_mm=30``.

    Raises:
        UsageError: an unknown key or a value out of range.
    """
    values = cascade.model_dump()
    for override in overrides:
        _set(values, override)
    return _validated(Cascade, values, "--set")


def _read(name_or_path: str | Path) -> dict[str, Any]:
    path = Path(name_or_path)
    if path.suffix != ".toml":
        if str(name_or_path) not in names():
            raise UsageError(
                f"no recipe {brief(str(name_or_path))}: give one of {', '.join(names())} or a "
                ".toml file"
            )
        source = resources.files(__package__).joinpath(f"{name_or_path}.toml")
        return tomllib.loads(source.read_text(encoding="utf-8"))
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
        check_values(found)
    except OSError as error:
        raise UsageError(f"recipe {path}: {error.strerror}; check the path") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"recipe {path}: it is not UTF-8; save it as such") from error
    except ValueError as error:
        raise UsageError(f"recipe {path}: {error}; correct it") from error
    except RecursionError as error:
        raise UsageError(f"recipe {path}: it is nested too deep; correct it") from error
    return found


def _set(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator:
        raise UsageError(f"{brief(override)} is not KEY=VALUE, for example region.margin_mm=30")
    *path, last = key.strip().split(".")
    table = values
    for part in path:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise UsageError(f"{brief(override)}: {part} has no keys of its own")
    table[last] = _value(text.strip())
    try:
        check_values(table[last])
    except ValueError as error:
        raise UsageError(f"{brief(override)}: {error}") from error


def _value(text: str) -> object:
    """Read a TOML value; a bare word is a string, bare words with commas are a list of them."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        words = [word.strip() for word in text.split(",")]
        return words if len(words) > 1 else text


def _validated(model: type[M], values: dict[str, Any], where: str) -> M:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"{where}: {problem(error)}{_hint(model, error)}") from error


def _hint(model: type[Frozen], error: ValidationError) -> str:
    """Return the keys that come close to a wrong one, if that is the error."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        return ""
    close = difflib.get_close_matches(key, _keys(model), n=3)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _keys(model: type[Frozen], prefix: str = "") -> list[str]:
    found = []
    for name, field in model.model_fields.items():
        inner = [t for t in (field.annotation, *get_args(field.annotation)) if _is_table(t)]
        found += _keys(inner[0], f"{prefix}{name}.") if inner else [f"{prefix}{name}"]
    return found


def _is_table(annotation: object) -> TypeGuard[type[Frozen]]:
    return isinstance(annotation, type) and issubclass(annotation, Frozen)
