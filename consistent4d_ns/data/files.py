"""Shared by the image and video readers: errors for unreadable files, and orientation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Shaped

from consistent4d_ns.data.images import MAX_SIDE
from consistent4d_ns.errors import InputError

Orientation: TypeAlias = tuple[int, int, int, int]
"""(a, b, c, d) of a display matrix, each -1, 0 or 1: the stored pixel (x, y) is shown at (a x + c y, b x + d y), moved
so that no coordinate is negative (x to the right, y down)."""
UPRIGHT: Orientation = (1, 0, 0, 1)
"""Shown as stored."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Report whatever a decoder raises as a damaged file.

    Decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error, IndexError, FFmpeg's own errors and more
    over damaged files, so every exception is taken for one.
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} is damaged or cut short ({reason}): export or copy it again") from error


def check_not_empty(path: Path) -> None:
    """Raises: InputError: the file has zero bytes, the trace of a failed copy."""
    with reading(path):
        size = path.stat().st_size
    if size == 0:
        raise InputError(f"{path} is an empty file (zero bytes): export or copy it again")


def check_side(path: Path, height: int, width: int) -> None:
    """Raises: InputError: an image so large that it would fill the memory."""
    if max(height, width) > MAX_SIDE:
        size = by((height, width))
        raise InputError(f"{path} is {size}: scale it down to at most {MAX_SIDE} pixels a side")


def by(size: Sequence[int]) -> str:
    """(height, width) as 'WIDTHxHEIGHT'."""
    return f"{size[1]}x{size[0]}"


def oriented(image: Shaped[np.ndarray, "h w c"], orientation: Orientation) -> Shaped[np.ndarray, "h2 w2 c"]:
    """The image as it is to be shown."""
    a, b, c, d = orientation
    if a == 0:
        image, a, d = image.swapaxes(0, 1), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
