"""Parts of what a status file holds."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cfseg.errors import InputError
from cfseg.findings.agreement import agreement
from cfseg.io import file_digest
from cfseg.segmenter import Segmentation

DIGEST_BYTES = 64 << 20
"""Of a refused input: beyond, no digest is taken."""


def now() -> str:
    """Return the time in UTC; what is later is greater, as text."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def findings_of(segmentation: Segmentation) -> dict[str, Any]:
    """Return what a result says of itself."""
    result = segmentation.result
    return {
        "input_sha256": segmentation.scan.sha256,
        "region": None if result.region is None else [result.region.start, result.region.stop],
        "volumes_ml": result.label_map.volumes_ml(),
        "agreement": agreement(result.tumor_maps, result.organ_map),
        "seconds": result.seconds | {"total": segmentation.seconds},
        "memory": result.memory,
    }


def input_digest(scan: Path) -> str:
    """Return the digest of an input that was refused; empty if it is large or cannot be read.

    A header alone may have refused it, and reading all of a large file only to name it takes long.
    """
    try:
        return file_digest(scan) if scan.stat().st_size <= DIGEST_BYTES else ""
    except (InputError, OSError):  # what was refused may be unreadable
        return ""


def digest_of(settings: dict[str, Any]) -> str:
    """Return the sha256 of settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
