"""JSON that others wrote: read with limits, and its numbers taken for what they are."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

MAX_BYTES = 256 * 2**20
"""Largest file that is read: a camera path of the largest accepted number of frames has 50 MB."""


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no regular file (reading a named pipe would wait for ever), too large, or no JSON,
            or names something twice.
    """
    if path.exists() and not path.is_file():
        raise ValueError("not a file")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{size / 2**20:.0f} MiB, and at most {MAX_BYTES / 2**20:.0f} are read")
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_named_once)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; raises ValueError where a name is there twice, of which it is not known which one is meant."""
    values = dict(pairs)
    if len(values) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"{twice[:40]!r} is there twice")
    return values


def number(value: object, name: str) -> float:
    """A finite number of a JSON file, which messages call by its name.

    Raises:
        ValueError: It is not finite, or too large.
        TypeError: It is no number; `true` and texts are none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is {str(value)[:40]!r}, which is no number")
    try:
        result = float(value)
    except OverflowError:
        raise ValueError(f"{name} is too large a number") from None
    if not math.isfinite(result):
        raise ValueError(f"{name} is {result}, which is not finite")
    return result
