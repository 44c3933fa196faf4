"""Earlier runs among a method's folders, and which of them is the latest. Nothing in their files is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from consistent4d_ns.files.checkpoints import list_checkpoints
from consistent4d_ns.files.outputs import refusals


def latest_run(parent: Path, data: Path | None, prompt: str | None, checkpoints: Path, config: str) -> Path | None:
    """Folder of the run that was trained on some frames, or from a prompt, and in which a file was written last.

    None if there is none.

    Args:
        parent: Folder of all runs.
        data: The frames, as an absolute path; None for a prompt.
        prompt: The prompt; None for frames.
        checkpoints: Folder of checkpoints, relative to a run's.
        config: Name of a run's configuration.

    Raises:
        InputError: the folder cannot be read.
    """
    with refusals(parent):
        files = [file for file in parent.glob(f"*/{config}") if file.is_file()] if parent.is_dir() else []
    candidates = [file.parent for file in files if trained_on(file, data, prompt)]
    return max(candidates, key=lambda run: _latest_change(run / config, run / checkpoints), default=None)


def _latest_change(config: Path, checkpoints: Path) -> float:
    """When the configuration or a checkpoint of a run was written last."""
    return max(file.stat().st_mtime for file in (config, *list_checkpoints(checkpoints).values()))


def trained_on(config: Path, data: Path | None, prompt: str | None) -> bool:
    """Whether a configuration names these frames, or without frames this prompt; False if it is no configuration."""
    entries = _entries(config)
    if data is None:
        return "prompt" in entries and getattr(entries["prompt"], "value", None) == prompt
    return frames_named(config) == data


def frames_named(config: Path) -> Path | None:
    """Where a configuration says that its frames are; None if it names none, or is no configuration."""
    try:
        return Path(*(part.value for part in _entries(config)["data"].value))
    except (AttributeError, LookupError, TypeError):
        return None


def _entries(config: Path) -> dict[str, Any]:
    """Nodes of a configuration by name; none if it is no configuration."""
    try:
        node = yaml.compose(config.read_text(encoding="utf-8"), yaml.SafeLoader)  # A tree of texts: nothing is built.
        return {key.value: value for key, value in node.value}
    except (OSError, ValueError, yaml.YAMLError, AttributeError, LookupError, TypeError, RecursionError):
        return {}
