"""Which object is meant, and where it is in each frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Int32

from consistent4d_ns.data.parts import numbered
from consistent4d_ns.errors import InputError

SMALLEST = 2e-4
"""Share of the picture below which a part is no object but noise."""
REACH = 0.06
"""How far an object may move between chosen frames without counting as another one, as a share of the picture."""
SATELLITE = 0.02
"""Share of the object's area above which another part of a user's own mask belongs to it."""

Mask = Bool[np.ndarray, "h w"]


@dataclass(frozen=True)
class Hint:
    """Where the object is in the first frame, in pixels of its map."""

    point: tuple[float, float] | None = None
    """x and y."""
    box: tuple[float, float, float, float] | None = None
    """Left, top, right and bottom."""

    def scaled(self, factor: float) -> Hint:
        """The same in a picture of another size."""
        point = None if self.point is None else (self.point[0] * factor, self.point[1] * factor)
        box = None if self.box is None else tuple(value * factor for value in self.box)
        return Hint(point, box)  # type: ignore[arg-type]

    @property
    def given(self) -> bool:
        """Whether there is one."""
        return self.point is not None or self.box is not None


def track_object(masks: Sequence[Mask], hint: Hint) -> list[Mask]:
    """The object in each frame: one connected part, or none.

    The parts are chosen so that the sum of their areas, each counted as far as the part overlaps its predecessor, is
    largest; a hint says which is the first one. What is near an earlier place of the object counts as overlapping.

    Args:
        masks: What is foreground in each frame.
        hint: Which object is meant.

    Raises:
        InputError: Nothing is where the hint says.
    """
    labelled = [_parts(mask) for mask in masks]
    first = _hinted(labelled[0], hint)
    chosen = _longest(labelled, first)
    return [
        parts == number if number else np.zeros_like(parts, bool)
        for parts, number in zip(labelled, chosen, strict=True)
    ]


def with_satellites(mask: Mask) -> Mask:
    """A user's own mask without specks."""
    parts = numbered(mask)
    areas = np.bincount(parts.ravel())
    areas[0] = 0
    return (areas >= SATELLITE * areas.max())[parts] & mask


def _parts(mask: Mask) -> Int32[np.ndarray, "h w"]:
    """Numbers of the parts that are large enough, in order of their area, from 1."""
    parts = numbered(mask)
    areas = np.bincount(parts.ravel())
    areas[0] = 0
    order = np.argsort(-areas, kind="stable")
    number = np.zeros(len(areas), np.int32)
    large = [part for part in order if areas[part] > SMALLEST * mask.size]
    number[large] = np.arange(1, len(large) + 1)
    return number[parts]


def _hinted(parts: Int32[np.ndarray, "h w"], hint: Hint) -> int | None:
    """The part that a hint means; None without a hint.

    Raises:
        InputError: There is none.
    """
    height, width = parts.shape
    if hint.point is not None:
        x, y = (int(value) for value in hint.point)
        if not (0 <= x < width and 0 <= y < height):
            raise InputError("--point lies outside of the first chosen frame: give x and y in its pixels.")
        if not parts[y, x]:
            raise InputError(
                "no object was found at --point in the first chosen frame: give --box around it, or --masks."
            )
        return int(parts[y, x])
    if hint.box is not None:
        left, top, right, bottom = (max(round(value), 0) for value in hint.box)
        counts = np.bincount(parts[top:bottom, left:right].ravel(), minlength=1)
        counts[0] = 0
        if not counts.any():
            raise InputError("no object was found in --box in the first chosen frame: give another box, or --masks.")
        return int(counts.argmax())
    return None


def _longest(labelled: Sequence[Int32[np.ndarray, "h w"]], first: int | None) -> list[int]:
    """One part per frame, 0 for none, by dynamic programming over the frames."""
    scores = _areas(labelled[0])
    if first is not None:
        scores[np.arange(len(scores)) != first] = -np.inf
    origins: list[Int32[np.ndarray, " parts"]] = []
    for before, after in pairwise(labelled):
        step = scores[:, None] + _overlaps(before, after)
        origins.append(step.argmax(axis=0).astype(np.int32))
        scores = step.max(axis=0)
    path = [int(scores.argmax())]
    for origin in reversed(origins):
        path.append(int(origin[path[-1]]))
    return path[::-1]


def _areas(parts: Int32[np.ndarray, "h w"]) -> np.ndarray:
    """Area of each part as a share of the picture; 0 for part 0, which is none."""
    areas = np.bincount(parts.ravel()) / parts.size
    areas[0] = 0
    return areas


def _overlaps(before: Int32[np.ndarray, "h w"], after: Int32[np.ndarray, "h w"]) -> np.ndarray:
    """How much of each later part (columns) lies near each earlier part (rows), as a share of the picture.

    To or from no part at all nothing is gained. A part that is not near costs what it is worth.
    """
    import cv2

    reach = max(1, round(REACH * max(before.shape)))
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    areas = _areas(after)
    gains = np.zeros((int(before.max()) + 1, len(areas)))
    for part in range(1, len(gains)):
        near = cv2.dilate((before == part).astype(np.uint8), kernel).astype(bool)
        inside = np.bincount(after[near], minlength=len(areas)) / after.size
        gains[part] = np.where(inside > 0, 2 * inside - areas, -areas)
    gains[:, 0] = 0
    return gains
