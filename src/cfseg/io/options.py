"""What a user may decide about scans that would be refused otherwise."""

from dataclasses import dataclass, fields
from typing import Any, Literal

from cfseg.errors import UsageError

_AXES = ("LR", "AP", "SI")
SERIES_FIELDS = ("description", "kernel", "uid")


@dataclass(frozen=True)
class ReadingOptions:
    """Decisions about scans that cannot be read without one; the others are read as ever.

    Every decision that was needed stands in the notes of its case.

    Attributes:
        assume_orientation: three letters, where the stored axes point to, as in ``LAS``; for a
            file with neither qform nor sform.
        force_spacing: take a spacing for what it says, in mm, however implausible.
        strict_geometry: refuse sheared axes instead of resampling to an orthogonal grid and back.
        volume_index: which volume of a file that holds several, counted from 0.
        nonfinite: ``air`` takes NaN and infinity for air.
        hu_offset: added to the values of a scan that is not in HU without it.
        allow_gaps: fill in slices that a DICOM series lacks, or that lie unevenly, linearly.
        all_series: each series of a DICOM study, and each acquisition in it, is a case of its own.
        series: which series of a DICOM study is read: its SeriesNumber, or ``FIELD~TEXT`` for the
            one whose description, kernel or uid has the text in it.
        force_modality: read a DICOM series that says it is no CT.

    Raises:
        UsageError: a value that none of these can have.
    """

    assume_orientation: str | None = None
    force_spacing: bool = False
    strict_geometry: bool = False
    volume_index: int | None = None
    nonfinite: Literal["refuse", "air"] = "refuse"
    hu_offset: float | None = None
    allow_gaps: bool = False
    all_series: bool = False
    force_modality: bool = False
    series: str | None = None

    def __post_init__(self) -> None:
        letters = self.assume_orientation
        if letters is not None:
            pairs = sorted(next((a for a in _AXES if c in a), "") for c in letters.upper())
            if pairs != sorted(_AXES):
                raise UsageError(
                    f"--assume-orientation {letters}: give one letter of each of "
                    f"{', '.join(_AXES)}, as in LAS"
                )
            object.__setattr__(self, "assume_orientation", letters.upper())
        if self.nonfinite not in ("refuse", "air"):
            raise UsageError(f"--nonfinite {self.nonfinite}: give refuse or air")
        if self.volume_index is not None and self.volume_index < 0:
            raise UsageError(f"--volume-index {self.volume_index}: volumes are counted from 0")
        self._check_series()

    def _check_series(self) -> None:
        if self.series is None:
            return
        name, tilde, part = self.series.partition("~")
        if tilde and (name.strip().lower() not in SERIES_FIELDS or not part.strip()):
            raise UsageError(
                f"--series {self.series}: give a SeriesNumber, or FIELD~TEXT with one of "
                f"{', '.join(SERIES_FIELDS)}, as in 'description~PORTAL'"
            )
        if self.all_series:
            raise UsageError("--series and --all-series exclude each other; give one of them")

    @property
    def labels(self) -> bool:
        """Whether a label map is read and not a scan."""
        return False

    def for_labels(self) -> "ReadingOptions":
        """Return the same for the label map of a scan that is read so."""
        return _OfLabels(**{field.name: getattr(self, field.name) for field in fields(self)})

    def advice(self, of_scan: str) -> str:
        """Return what to do about a file: what helps with a scan, or what fits any label map."""
        return "save the label map again on the grid of its scan" if self.labels else of_scan

    def given(self) -> dict[str, Any]:
        """Return what differs from the defaults and decides how a scan is read; JSON.

        Which series become cases does not: it says which scans there are.
        """
        names = [field.name for field in fields(self) if field.name not in ("all_series", "series")]
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value != getattr(AS_IS, name)}


@dataclass(frozen=True)
class _OfLabels(ReadingOptions):
    @property
    def labels(self) -> bool:
        return True


AS_IS = ReadingOptions()
"""Nothing decided."""
