"""Free space on disks."""

from __future__ import annotations

import shutil
from pathlib import Path

from consistent4d_ns.errors import InputError


def free_space(path: Path) -> int:
    """Free bytes on the disk of `path`, which need not exist yet.

    Raises:
        OSError: the system does not tell.
    """
    path = path.absolute()
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    return shutil.disk_usage(existing).free


def check_space(path: Path, size: int, remedy: str) -> None:
    """Make sure that `size` bytes fit on the disk of `path`.

    Args:
        path: The file or folder that will be written.
        size: Bytes that are needed.
        remedy: What to do if they do not fit.

    Raises:
        InputError: They do not fit.
    """
    free = free_space(path)
    if free < size:
        raise InputError(f"{path}: {size / 1e9:.2g} GB are needed there and {free / 1e9:.2g} GB are free; {remedy}.")
