"""What decides a result and is no longer as it was."""

from collections.abc import Iterator
from typing import Any


def differences(old: dict[str, Any], new: dict[str, Any], at: str = "") -> Iterator[str]:
    """Yield what differs between two settings, as ``region.margin_mm: 20.0, now 30.0``."""
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        name = f"{at}{key}"
        if isinstance(after, dict) and isinstance(before, dict):
            yield from differences(
                before, after, "" if key in ("cascade", "reading") else f"{name}."
            )
        elif key == "bundle_sha256":
            yield "another bundle"
        elif key != "bundle":
            yield f"{name}: {before}, now {after}"
