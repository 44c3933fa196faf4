"""Which object is meant, and where it is in each frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int32, Shaped

from consistent4d_ns.data.parts import large_parts, numbered
from consistent4d_ns.errors import InputError

SMALLEST = 2e-4
"""Share of the picture below which a part is no object but noise."""
REACH = 0.06
"""How far an object may move between chosen frames without counting as another one, as a share of the picture."""
SATELLITE = 0.02
"""Share of the object's area above which another part of a user's own mask belongs to it."""

COMMON = 0.2
"""Share of the smaller of two parts that the other one has to be near, so that both can be one object."""

Mask = Bool[np.ndarray, "h w"]
Labels = Int32[np.ndarray, "h w"]
"""Numbers of parts from 1; 0 is background."""


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

    @property
    def place(self) -> str:
        """Where it points, in words."""
        return "at --point" if self.point is not None else "in --box"

    def region(self, shape: tuple[int, ...]) -> tuple[slice, slice] | None:
        """Rows and columns, at least one each, that it means in a map of this height and width; None if not given."""
        if not self.given:
            return None
        left, top, right, bottom = self.box or 2 * self.point  # type: ignore[operator]
        return _span(top, bottom, shape[0]), _span(left, right, shape[1])


def _span(first: float, last: float, length: int) -> slice:
    """The pixels that a stretch touches, at least one, out of `length`."""
    start = math.floor(min(max(first, 0), length - 1))
    return slice(start, max(math.ceil(min(last, length)), start + 1))


def track_object(masks: Sequence[Mask], hint: Hint) -> list[Mask]:
    """The object in each frame: one connected part, or none.

    A track follows a part from frame to frame, to the part that overlaps most with the place where it was last seen and
    its surroundings. A hint says where the track begins; otherwise it is the one with the largest area in all frames.

    Args:
        masks: What is foreground in each frame.
        hint: Which object is meant.

    Raises:
        InputError: Nothing is where the hint says.
    """
    labelled = [_parts(mask) for mask in masks]
    first = _hinted(labelled[0], hint)
    chosen = _largest_track(labelled) if first is None else _follow(labelled, 0, first)
    return [
        parts == number if number else np.zeros_like(parts, bool)
        for parts, number in zip(labelled, chosen, strict=True)
    ]


def with_satellites(mask: Mask) -> Mask:
    """A user's own mask without specks."""
    return large_parts(mask, SATELLITE)


def _parts(mask: Mask) -> Labels:
    """Numbers of the parts that are large enough, in order of their area, from 1."""
    parts = numbered(mask)
    areas = np.bincount(parts.ravel())
    areas[0] = 0
    order = np.argsort(-areas, kind="stable")
    number = np.zeros(len(areas), np.int32)
    large = [part for part in order if areas[part] > SMALLEST * mask.size]
    number[large] = np.arange(1, len(large) + 1)
    return number[parts]


def _hinted(parts: Labels, hint: Hint) -> int | None:
    """The part that a hint means; None without a hint.

    Raises:
        InputError: There is none.
    """
    region = hint.region(parts.shape)
    if region is None:
        return None
    number = most_frequent(parts[region])
    if not number:
        other = "a --box around it" if hint.point is not None else "another box"
        raise InputError(f"no object was found {hint.place} in the first chosen frame: give {other}, or --masks.")
    return number


def most_frequent(numbers: Shaped[np.ndarray, "h w"]) -> int:
    """The number above 0 that most pixels have; 0 where there is none."""
    counts = np.bincount(numbers.ravel(), minlength=1)
    counts[0] = 0
    return int(counts.argmax())


def _largest_track(labelled: Sequence[Labels]) -> list[int]:
    """The track with the largest area among those through every part."""
    best, largest = [0] * len(labelled), 0
    visited: set[tuple[int, int]] = set()
    for frame, parts in enumerate(labelled):
        for part in range(1, int(parts.max()) + 1):
            if (frame, part) in visited:
                continue
            track = _follow(labelled, frame, part)
            visited.update(enumerate(track))
            area = sum(int((one == number).sum()) for one, number in zip(labelled, track, strict=True) if number)
            if area > largest:
                best, largest = track, area
    return best


def _follow(labelled: Sequence[Labels], start: int, part: int) -> list[int]:
    """The part in each frame, 0 for none, that belongs to one track; followed into both directions of time."""
    track = [0] * len(labelled)
    track[start] = part
    for direction in (range(start + 1, len(labelled)), range(start - 1, -1, -1)):
        last, absent = labelled[start] == part, 0
        for frame in direction:
            track[frame] = _successor(last, labelled[frame], absent)
            last, absent = (labelled[frame] == track[frame], 0) if track[frame] else (last, absent + 1)
    return track


def _successor(last: Mask, parts: Labels, absent: int) -> int:
    """The part that continues a track; 0 for none.

    Args:
        last: Where the object was last seen.
        parts: Numbers of the parts of the frame.
        absent: Frames since then in which it was not seen.
    """
    import cv2

    reach = max(1, round(REACH * max(parts.shape) * (1 + absent)))
    near = cv2.dilate(last.astype(np.uint8), np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)).astype(bool)
    areas = np.bincount(parts.ravel())
    overlap = np.bincount(parts[near], minlength=len(areas))
    overlap[0] = 0
    best = int(overlap.argmax())
    return best if overlap[best] > COMMON * min(areas[best], int(last.sum())) else 0
