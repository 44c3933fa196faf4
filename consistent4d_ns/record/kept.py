"""Small records in a run's folder: a dataclass each, in a JSON file that may be missing or damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from consistent4d_ns.errors import InputError
from consistent4d_ns.files.json_files import read_json
from consistent4d_ns.messages import warn

T = TypeVar("T")


def read_kept(file: Path, parsed: Callable[[Any], T], loss: str) -> T | None:
    """What a file records; None where there is none, or with a warning where it is damaged.

    Args:
        file: The file.
        parsed: Makes the record of the file's values; raises TypeError, LookupError, ValueError or InputError if they
            make no sense.
        loss: What is not known where it is damaged, as the end of a sentence.
    """
    if not file.exists():
        return None
    try:
        return parsed(read_json(file))
    except (OSError, ValueError, TypeError, LookupError, InputError):
        warn(f"{file} is damaged: {loss}.")
        return None
