"""Checks the alpha channels of frames: unusable ones are rejected, suspicious ones are reported."""

from __future__ import annotations

import shlex
from collections import defaultdict
from enum import Enum
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from consistent4d_ns.errors import InputError

FAINT = 0.02
"""Alpha this close to 0 or 1 counts as 0 or 1 when a frame is judged: lossy videos are not exact."""
HAZY_SHARE = 0.25
"""Share of mostly transparent pixels above which a frame without fully transparent ones counts as hazy."""
SMALL_AREA = 1 / 512
"""Share of a square frame under which an object is small: 11 x 11 of 256 x 256 pixels."""


class Defect(Enum):
    """What can be wrong with an alpha channel; the values are sentences that follow the name of a frame."""

    HAZE = "has a background that is not transparent but faint all over: raise the black point of the alpha channel"
    INVERTED = "is opaque along its border and transparent inside, as if alpha were inverted: invert the alpha channel"
    SMALL = "shows an object of a few pixels: crop the video to the object, which then is learned in more detail"
    NOT_PREMULTIPLIED = (
        "has colours brighter than its alpha, so they are not premultiplied: set the data parser's alpha to straight"
    )


class MatteReport:
    """Collects the defects of all frames, to report each once per sequence."""

    def __init__(self) -> None:
        self._frames: dict[Defect, list[str]] = defaultdict(list)
        self._count = 0

    def add(self, where: str, defects: frozenset[Defect]) -> None:
        """Note the defects of a frame, of which there may be none."""
        self._count += 1
        for defect in defects:
            self._frames[defect].append(where)

    def lines(self) -> list[str]:
        """One line per defect: the first frame that has it, and how many do."""
        return [
            f"{frames[0]} {defect.value} ({len(frames)} of {self._count} frames)"
            for defect, frames in self._frames.items()
        ]


def check_alpha(alpha: Float32[np.ndarray, "h w"], where: str, source: Path) -> None:
    """Check that a frame, whose name is `where`, of a file or folder shows something in front of something clear.

    Raises:
        InputError: it is fully transparent or fully opaque.
    """
    if alpha.max() < FAINT:
        raise InputError(f"{where} is fully transparent: remove this frame, or segment it again")
    if alpha.min() > 1 - FAINT:
        raise InputError(
            f"{where} is fully opaque, as its background was not removed: cut the object out with "
            f"`consistent4d prepare {shlex.quote(str(source))} OUT`"
        )


def alpha_defects(alpha: Float32[np.ndarray, "h w"]) -> frozenset[Defect]:
    """Suspicious properties of an alpha channel with values in [0, 1]."""
    clear = float((alpha < FAINT).mean())
    faint = float((alpha < 0.5).mean()) - clear
    border = np.concatenate((alpha[0], alpha[-1], alpha[1:-1, 0], alpha[1:-1, -1]))
    found = {
        Defect.HAZE: clear < 0.01 and faint > HAZY_SHARE,
        Defect.INVERTED: float((border > 0.5).mean()) > 0.9,
        Defect.SMALL: float(alpha.sum()) < SMALL_AREA * max(alpha.shape) ** 2,
    }
    return frozenset(defect for defect, present in found.items() if present)


def colour_exceeds_alpha(image: Float32[np.ndarray, "h w 4"]) -> bool:
    """Whether an image, in [0, 1], cannot be premultiplied: colours exceed alpha in more than a few edge pixels."""
    exceeds = image[..., :3].max(axis=-1) > image[..., 3] + 2 * FAINT
    partial = image[..., 3] < 1 - FAINT
    return int(exceeds.sum()) > 0.01 * max(int((partial & (image[..., 3] > FAINT)).sum()), 1) + 0.001 * exceeds.size
