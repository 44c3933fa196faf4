"""The tiles of a rendered image from left to right; imports nothing slow, so that names are validated first."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from consistent4d_ns.errors import InputError

INPUT = "input"
"""Name of the tile that shows the input frame of that time."""
OUTPUTS = (INPUT, "rgb", "depth", "normals", "accumulation")
"""Names of tiles of the finest level."""
OF_LEVEL = re.compile(r"(rgb|depth|accumulation)_(\d{1,3})")
"""Names of tiles of one cascade level."""


@dataclass(frozen=True)
class Tile:
    """One of several images side by side."""

    output: str
    """The input, or an output of the model."""
    turn: float = 0.0
    """Degrees by which the path's camera is turned about the object's vertical axis, towards larger azimuths."""

    def __str__(self) -> str:
        """As `parse_tiles` reads it."""
        return f"{self.output}@{self.turn:g}" if self.turn else self.output

    @property
    def level(self) -> int | None:
        """The cascade level, where the name says one."""
        match = OF_LEVEL.fullmatch(self.output)
        return int(match[2]) if match else None


def parse_tiles(names: Sequence[str]) -> list[Tile]:
    """Tiles from `NAME` or `NAME@DEGREES`, such as `rgb@90`.

    Raises:
        InputError: There is no such output, or the degrees are not a number.
    """
    if not names:
        raise InputError(f"--outputs names nothing: choose from {_choices()}.")
    return [_parse(name) for name in names]


def check_levels(tiles: Sequence[Tile], levels: int) -> None:
    """Raises: InputError: a tile shows a cascade level that a model with so many levels does not have."""
    for tile in tiles:
        if tile.level is not None and tile.level >= levels:
            raise InputError(f"there is no output {tile.output}: this run's cascade levels are 0 to {levels - 1}.")


def _parse(name: str) -> Tile:
    output, at, degrees = name.partition("@")
    turn = _finite(degrees) if at else 0.0
    if turn is None:
        raise InputError(f"output {name}: write degrees after the @, as in rgb@90.")
    if output not in OUTPUTS and not OF_LEVEL.fullmatch(output):
        raise InputError(f"there is no output {output}: choose from {_choices()}.")
    if at and output == INPUT:
        raise InputError(f"output {name}: the input was filmed from one side only; leave out @{degrees}.")
    return Tile(output, turn)


def _choices() -> str:
    return f"{', '.join(OUTPUTS)}, and rgb_L, depth_L, accumulation_L of level L of the field, from 0, the coarsest"


def _finite(text: str) -> float | None:
    """A finite number, if the text is one."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
