"""Settings in the folder of an enhancer; imports nothing slow, so that a wrong folder is refused at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from consistent4d_ns.enhancing.options import MAX_SIDE, STRIDE
from consistent4d_ns.errors import InputError

SETTINGS = "enhancer.json"
"""File that says how an enhancer was trained."""
FORMAT = 1
"""Version of the folder's layout."""
MAX_CHANNELS = 512
"""Most channels of the first level that are accepted."""
REMEDY = "give the folder that `consistent4d enhance` wrote, or train it again"


def read_settings(folder: Path) -> dict[str, Any]:
    """Settings of the enhancer in a folder, checked.

    Raises:
        InputError: There is none, or it is damaged or of another version.
    """
    file = folder / SETTINGS
    if not file.is_file():
        raise InputError(f"{folder} holds no {SETTINGS}: {REMEDY}.")
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        valid = settings["format"] == FORMAT and all(type(settings[name]) is int for name in ("channels", "size"))
        valid = valid and 1 <= settings["channels"] <= MAX_CHANNELS and STRIDE <= settings["size"] <= MAX_SIDE
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise InputError(f"{file} cannot be read as the settings of an enhancer: {REMEDY}.") from error
    if not valid:
        raise InputError(f"{file} has no valid format, channels and size: {REMEDY}.")
    return settings
