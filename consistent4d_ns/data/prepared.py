"""What `consistent4d prepare` tells about the frames that it writes: prepare.json beside them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from consistent4d_ns.errors import InputError
from consistent4d_ns.files.json_files import number, read_json

RECORD = "prepare.json"
"""Name of the file."""
PREVIEW = "preview.png"
"""Name of the picture that shows what was cut out."""
WRITER = "consistent4d prepare"
"""Value of `written_by` in the file, which tells it from files of other programs."""
COMPANIONS = frozenset({RECORD, PREVIEW, "manifest.json"})
"""What lies beside the frames and is none of them."""


@dataclass(frozen=True)
class Prepared:
    """What is known about prepared frames."""

    seconds: dict[str, float]
    """When each frame was filmed, by its name, in seconds since the beginning of the video; increasing."""
    elevation: float | None
    """Degrees of the camera above the object; None if unknown."""
    companions: frozenset[str] = COMPANIONS
    """Names beside the frames that are no frames."""


def read_prepared(folder: Path) -> Prepared | None:
    """What prepare.json says about the frames in its folder; None where there is no such file, or another program's.

    Raises:
        InputError: The file is damaged.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        values = read_json(path)
        if not isinstance(values, dict) or values.get("written_by") != WRITER:
            return None
        return _parsed(values)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; change its permissions, or remove it") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is broken ({type(error).__name__}: {error}): prepare the video again, or remove the file, "
            "with which the frames lose their times"
        ) from error


def _parsed(values: dict[str, Any]) -> Prepared:
    """The values of a file; raises ValueError, KeyError or TypeError where they make no sense."""
    seconds = {str(frame["name"]): number(frame["seconds"], "seconds") for frame in values["frames"]}
    if any(b <= a for a, b in pairwise(seconds.values())):
        raise ValueError("seconds of the frames do not increase")
    elevation = values.get("elevation_deg")
    return Prepared(seconds, None if elevation is None else number(elevation, "elevation_deg"))
