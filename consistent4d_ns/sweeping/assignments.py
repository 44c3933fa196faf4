"""Options of a training set by text, `PATH=VALUE`, as `ns-train` would."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import is_dataclass
from functools import reduce
from typing import Any, get_type_hints

import tyro
from tyro.constructors import UnsupportedTypeAnnotationError

from consistent4d_ns.errors import InputError, did_you_mean


def assign(config: Any, assignment: str) -> None:
    """Set one option of a configuration.

    Args:
        config: The configuration of a training.
        assignment: The path of the option, and its value as it follows that option of ns-train:
            `pipeline.guidance.scale=3`, `pipeline.datamanager.plan.clip-views=4 4`.

    Raises:
        InputError: there is no such option, or it cannot have this value.
    """
    setattr(*_read(config, assignment))


def value_of(config: Any, assignment: str) -> Any:
    """The value that `assign` would set; raises as it does."""
    return _read(config, assignment)[2]


def _read(config: Any, assignment: str) -> tuple[Any, str, Any]:
    """Which field of which part of a configuration an assignment sets, and its value there."""
    path, equals, value = assignment.partition("=")
    *parents, name = field_path(path).split(".")
    try:
        owner = reduce(child, parents, config)
        kind = get_type_hints(type(owner))[name]
    except (AttributeError, KeyError) as error:
        raise InputError(
            f"{assignment}: {config.method_name} has no option {path.replace('_', '-')}{nearest(config, path)}"
        ) from error
    if not equals or is_dataclass(kind):
        raise InputError(f"{assignment}: give PATH=VALUE, where PATH names a single value.")
    return owner, name, _parsed(kind, value, assignment)


def nearest(config: Any, path: str) -> str:
    """How a sentence about an option that does not exist ends: with those that are spelt nearly so, if any are."""
    names, owner = field_path(path).split("."), config
    for number, name in enumerate(names):
        present = list(owner) if isinstance(owner, dict) else list(vars(owner)) if is_dataclass(owner) else []
        if name not in present:
            question = did_you_mean(name, present, "".join(f"{above}." for above in names[:number]))
            return f": {question.replace('_', '-')}" if question else "."
        owner = child(owner, name)
    return "."


def field_path(path: str) -> str:
    """The path of an option as its fields are named: without leading dashes, with underscores."""
    return path.removeprefix("--").replace("-", "_")


def child(owner: Any, name: str) -> Any:
    """A part of a configuration; optimisers are in dictionaries."""
    return owner[name] if isinstance(owner, dict) else getattr(owner, name)


def _parsed(kind: Any, value: str, assignment: str) -> Any:
    """Parse a value as ns-train does.

    Raises:
        InputError: the value has another type.
    """
    name = kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        try:
            return tyro.cli(kind, args=value.split())
        except SystemExit as error:
            raise InputError(f"{assignment}: {value!r} is not of type {name}.") from error
        except UnsupportedTypeAnnotationError as error:
            raise InputError(f"{assignment}: this is no option that a command line can set.") from error
