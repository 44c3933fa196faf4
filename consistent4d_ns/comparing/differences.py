"""The options in which configurations differ; pure functions."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from consistent4d_ns.checks.config import is_code

WITHOUT_EFFECT = (
    *("data", "timestamp", "output_dir", "experiment_name", "project_name", "relative_model_dir"),
    *("load_dir", "load_step", "load_checkpoint", "load_config", "load_scheduler", "overwrite"),
    *("vis", "viewer", "logging", "prompt", "save_only_latest_checkpoint", "log_gradients"),
    *("machine.dist_url", "pipeline.datamanager.data", "pipeline.datamanager.dataparser.data"),
)
"""Options, or groups of them, that say where a run lies and how it is shown, not how it is trained. The data are not
compared by their path here, but by what is in them."""
VAGUE = ("start", "end", "begin-step", "end-step", "steps", "kind", "views", "rays", "lr")
"""Last parts of options' names that say little without the part before."""
MISSING = object()
"""Stands for an option that a configuration does not have."""


def differences(configs: Sequence[Any]) -> dict[str, list[str]]:
    """The options whose values are not the same in all configurations.

    Args:
        configs: Configurations of runs.

    Returns:
        By the name of the option, as `ns-train` has it without the leading dashes: its value in every configuration, as
        it is written after that option; "-" where a configuration has no such option.
    """
    all_values = [dict(_leaves(config)) for config in configs]
    names = dict.fromkeys(name for values in all_values for name in values)
    found = {name: [values.get(name, MISSING) for values in all_values] for name in names if _counts(name)}
    written = {name: [as_written(value) for value in values] for name, values in found.items()}
    return {name.replace("_", "-"): texts for name, texts in written.items() if len(set(texts)) > 1}


def _counts(name: str) -> bool:
    return not any(name == other or name.startswith(f"{other}.") for other in WITHOUT_EFFECT)


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a configuration that is not a group of others, by its path."""
    parts: Mapping[str, Any] | None = None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif isinstance(value, dict) and value:
        parts = {str(key): part for key, part in value.items()}
    if parts is None:
        if not is_code(value):
            yield name, value
        return
    for key, part in parts.items():
        yield from _leaves(part, f"{name}.{key}" if name else key)


def short_names(options: Sequence[str]) -> dict[str, str]:
    """What to call options among each other: the last parts of their names, as many as it takes to tell them apart.

    Args:
        options: Their names, with dots, and dashes or underscores.

    Returns:
        By name, in the words of a command line: `seed`, `guidance.kind`.
    """
    parts = {option: option.replace("_", "-").split(".") for option in options}
    others = {option: [other for other in parts.values() if other != own] for option, own in parts.items()}
    return {option: _short_name(own, others[option]) for option, own in parts.items()}


def _short_name(own: Sequence[str], others: Sequence[Sequence[str]]) -> str:
    least = 2 if own[-1] in VAGUE else 1
    depths = range(min(least, len(own)), len(own) + 1)
    depth = next((n for n in depths if all(other[-n:] != own[-n:] for other in others)), len(own))
    return ".".join(own[-depth:])


def as_written(value: Any) -> str:
    """A value as it is written after an option: `4 4`, `True`, `None`; a path by its last part."""
    if value is MISSING:
        return "-"
    if isinstance(value, (tuple, list)):
        return " ".join(map(as_written, value))
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, PurePath):
        return value.name
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
