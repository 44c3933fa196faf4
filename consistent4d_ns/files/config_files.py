"""Where a run's configuration is. Nothing slow is imported, so that a wrong name is refused at once."""

from __future__ import annotations

from pathlib import Path

from consistent4d_ns.errors import InputError

REMEDY = "give a run's folder or its config.yml"
"""What to do where a file is no configuration."""
CONFIG_FILE = "config.yml"
"""Nerfstudio's name for a run's configuration."""
CHECKPOINT = ".ckpt"
"""How the names of checkpoints end."""


def config_file(path: Path, out: Path | None = None) -> Path:
    """The `config.yml` that is given by its path, or by its folder.

    Args:
        path: The file or folder.
        out: What is to be written, with `--overwrite` in the place of something else.

    Raises:
        InputError: There is no such file, it is a checkpoint, or `out` has the name of a run's file.
    """
    path = path / CONFIG_FILE if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"{path} does not exist: {REMEDY}.")
    if path.suffix == CHECKPOINT:
        raise InputError(f"{path} is a checkpoint: {REMEDY} (two folders above it).")
    if out is not None and _names_part_of_run(out, path):
        raise InputError(f"{out} is where a run has its configuration or a checkpoint: give another name.")
    return path


def _names_part_of_run(out: Path, config: Path) -> bool:
    """Whether an output would lie in the place of the configuration that is read, or has a name as parts of runs do."""
    same = out.name == config.name and out.parent.resolve() == config.parent.resolve()
    return same or out.name.lower() == CONFIG_FILE or out.suffix.lower() == CHECKPOINT
