"""One spelling for values that mean the same, so that nothing is done again because of how a value is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from consistent4d_ns.errors import InputError

LARGEST = 1e15
"""Whole numbers up to here are written without a point."""


def plainly(values: Sequence[str], meaning: Callable[[Sequence[str]], Any]) -> list[str]:
    """Values of an option, with numbers and paths as they are mostly written: `1` for `01` and `1.0`, `a` for `./a/`.

    A value stays as it is where another spelling means something else, as in a title.

    Args:
        values: The values that are given.
        meaning: What the option's parser makes of such values; raises InputError where it refuses them.
    """
    found = list(values)
    for place, value in enumerate(values):
        if (plain := _plain(value)) != value:
            other = [*found[:place], plain, *found[place + 1 :]]
            with suppress(InputError):
                found = other if meaning(other) == meaning(found) else found
    return found


def _plain(value: str) -> str:
    """How a value would be written if it were a number, or else a path."""
    for kind in (int, float):
        with suppress(ValueError):
            number = kind(value)
            return str(int(number) if abs(number) < LARGEST and number == int(number) else number)
    return os.path.normpath(value) if "/" in value else value
