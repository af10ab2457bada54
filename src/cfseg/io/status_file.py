"""``status/CASE.json``, read back: what became of a case, for the next run and for others.

A disk, a copy or a person may have damaged such a file. What is read here has the types that who
reads it counts on; what has not is damaged as a whole.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, model_validator

from cfseg.foreign import Stored, read_object

_FileName = Annotated[str, Field(pattern=r"^[^/\\\x00]+$", max_length=200)]
"""Of a file in the same folder: never a way out of it."""
_Amount = Annotated[float, Field(ge=0, le=1e9)]
_Fraction = Annotated[float, Field(ge=0, le=1)]


class _Settings(Stored):
    bundle: str
    bundle_sha256: str
    cfseg: str


class _Versions(Stored):
    torch: str


class _Status(Stored):
    case: _FileName
    state: Literal["running", "done", "empty", "refused", "failed"]
    code: str = ""
    message: str = ""
    notes: list[str] = Field(default_factory=list)
    notice: str = ""
    again: list[str] = Field(default_factory=list)
    attempt: Annotated[int, Field(ge=0, le=10**6)] = 0
    started: str = ""
    finished: str = ""
    device: str = ""
    versions: _Versions = _Versions(torch="")
    settings: _Settings = _Settings(bundle="", bundle_sha256="", cfseg="")
    input_stamp: list[Any] = Field(default_factory=list)
    input_sha256: str = ""
    output: _FileName = ""
    output_sha256: str = ""
    volumes_ml: dict[str, _Amount] = Field(default_factory=dict)
    agreement: dict[str, _Fraction] = Field(default_factory=dict)
    seconds: dict[str, _Amount] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.state in ("done", "empty") and "total" not in self.seconds:
            raise ValueError("seconds.total is missing")
        return self


_KIND = TypeAdapter(_Status)
_DEFAULTS: dict[str, Any] = {"code": "", "message": "", "notes": [], "notice": ""}
"""Of a case that a run is at, nothing of this is written yet."""


def read_status(path: Path) -> dict[str, Any]:
    """Return what a status file holds, checked.

    Args:
        path: ``status/CASE.json``.

    Raises:
        OSError: there is none, or it cannot be read.
        ValueError: it is damaged; says which key.
    """
    return _DEFAULTS | read_object(path, _KIND)
