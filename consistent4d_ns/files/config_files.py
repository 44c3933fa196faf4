"""Where a run's configuration is. Nothing slow is imported, so that a wrong name is refused at once."""

from __future__ import annotations

from pathlib import Path

from consistent4d_ns.errors import InputError

REMEDY = "give a run's folder or its config.yml"
"""What to do where a file is no configuration."""


def config_file(path: Path) -> Path:
    """The `config.yml` that is given by its path, or by its folder.

    Raises:
        InputError: There is no such file, or it is a checkpoint.
    """
    path = path / "config.yml" if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"{path} does not exist: {REMEDY}.")
    if path.suffix == ".ckpt":
        raise InputError(f"{path} is a checkpoint: {REMEDY} (two folders above it).")
    return path
