"""cfseg: coarse-to-fine segmentation of 13 abdominal organs and tumors in CT.

Everything here is imported when it is first used, so ``import cfseg`` costs next to nothing.

Example:
    >>> import cfseg
    >>> result = cfseg.segment("ct.nii.gz")          # doctest: +SKIP
    >>> result.save("labels.nii.gz")                 # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cfseg.errors import CfsegError, InputError, ModelError, ResourceError, UsageError
    from cfseg.evaluation.flare import evaluate
    from cfseg.findings.measure import Findings, measure
    from cfseg.geometry import Box, Geometry
    from cfseg.labels import LABELS
    from cfseg.segmenter import Segmentation, Segmenter, segment
    from cfseg.volume import LabelMap, Volume

__version__ = "0.2.0"

_HOME = {
    "Box": "geometry",
    "CfsegError": "errors",
    "Findings": "findings.measure",
    "Geometry": "geometry",
    "InputError": "errors",
    "LABELS": "labels",
    "LabelMap": "volume",
    "ModelError": "errors",
    "ResourceError": "errors",
    "Segmentation": "segmenter",
    "Segmenter": "segmenter",
    "UsageError": "errors",
    "Volume": "volume",
    "evaluate": "evaluation.flare",
    "measure": "findings.measure",
    "segment": "segmenter",
}

__all__ = [
    "LABELS",
    "Box",
    "CfsegError",
    "Findings",
    "Geometry",
    "InputError",
    "LabelMap",
    "ModelError",
    "ResourceError",
    "Segmentation",
    "Segmenter",
    "UsageError",
    "Volume",
    "__version__",
    "evaluate",
    "measure",
    "segment",
]


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(import_module(f"cfseg.{_HOME[name]}"), name)
    raise AttributeError(f"module 'cfseg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
