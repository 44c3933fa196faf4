"""Validates configurations against the declared types of their fields, and the classes that they may instantiate.

Configurations are read from files that others may have written, and `_target` says which class to call.
"""

from __future__ import annotations

import dataclasses
import enum
import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from consistent4d_ns.errors import InputError

MAX_VALUES = 10_000
"""Largest number of values in a configuration; those of the presets have a few hundred."""


def check_config(config: Any, name: str = "") -> None:
    """Check every field of a configuration and of those inside of it.

    A field that is missing, as in the file of an earlier version, gets its default.

    Args:
        config: A dataclass.
        name: What to call it in messages, as in an option; empty: the whole configuration.

    Raises:
        InputError: a field holds a value of another type than it declares, or a class or function that is neither its
            default nor a subclass of that; or it is missing and has no default; or all of it is far too much.
    """
    if not name:
        _check_extent(config)
    hints = get_type_hints(type(config))
    for field in dataclasses.fields(config):
        path = f"{name}.{field.name}".lstrip(".")
        if not hasattr(config, field.name):
            setattr(config, field.name, _default(field, path))
        value = getattr(config, field.name)
        if is_code(value):
            _check_code(value, field, path)
        elif not fits(value, hints[field.name]):
            declared = _short(hints[field.name])
            raise InputError(f"{path} in the configuration is {_short(value)}: expected {declared}.")
        for inner_path, inner in parts_of(value, path):
            if not isinstance(inner, enum.Enum):
                check_config(inner, inner_path)


def _check_extent(config: Any) -> None:
    """Raises: InputError: it holds far more values than any run's; a few aliases in a file can stand for billions."""
    waiting, seen = [config], 0
    while waiting:
        value = waiting.pop()
        seen += 1
        if seen > MAX_VALUES:
            raise InputError(
                f"the configuration holds more than {MAX_VALUES} values (or itself): give the config.yml that ns-train "
                "saved."
            )
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, (tuple, list, set, frozenset)):
            waiting.extend(value)
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            waiting.extend(vars(value).values())


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the type that an annotation states; what cannot be judged fits."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if hint is None or hint is type(None):
        return value is None
    if origin in (Union, types.UnionType):
        return any(fits(value, argument) for argument in arguments)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in arguments)
    if origin is tuple:
        return isinstance(value, (tuple, list)) and _fits_tuple(value, arguments)
    if origin is list:
        return isinstance(value, list) and all(fits(part, arguments[0]) for part in value)
    if origin is dict:
        return isinstance(value, dict) and all(all(map(fits, item, arguments)) for item in value.items())
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return isinstance(value, hint) if isinstance(hint, type) else True


def _fits_tuple(value: tuple[Any, ...] | list[Any], arguments: tuple[Any, ...]) -> bool:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return all(fits(part, arguments[0]) for part in value)
    return len(value) == len(arguments) and all(map(fits, value, arguments))


def is_code(value: Any) -> bool:
    """Whether a value is a class, a function, or anything else that is not data and can be called."""
    return isinstance(value, (type, staticmethod)) or (callable(value) and not dataclasses.is_dataclass(value))


def _check_code(value: Any, field: dataclasses.Field[Any], path: str) -> None:
    """Raises: InputError: a field holds other code than its default or a subclass of it."""
    default = _default(field, path)
    derived = isinstance(value, type) and isinstance(default, type) and issubclass(value, default)
    if not (derived or _plain(value) is _plain(default)):
        raise InputError(f"{path} in the configuration is {_short(value)}, which is not allowed there and is not used.")


def _default(field: dataclasses.Field[Any], path: str) -> Any:
    """A field's default. Raises: InputError: it has none."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    if field.default is dataclasses.MISSING:
        raise InputError(f"the configuration lacks {path}: give the config.yml that ns-train saved.")
    return field.default


def _plain(value: Any) -> Any:
    """The function in a static method; anything else as it is."""
    return value.__func__ if isinstance(value, staticmethod) else value


def parts_of(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Configurations and members of enumerations that a field's value is or holds in containers, with their names."""
    if isinstance(value, enum.Enum) or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
        yield path, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from parts_of(part, f"{path}.{key}")
    elif isinstance(value, (tuple, list)):
        for index, part in enumerate(value):
            yield from parts_of(part, f"{path}.{index}")


def _short(value: Any) -> str:
    """A value or type in a few words, on one line."""
    if get_origin(value) is not None:
        return str(value).replace("typing.", "")
    if isinstance(value, type) or callable(value):
        text = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__name__)}"
        return text.removeprefix("builtins.")
    text = f"a {type(value).__name__}" if dataclasses.is_dataclass(value) else " ".join(str(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
