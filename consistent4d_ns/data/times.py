"""When frames were filmed, frame rates, and which times and rates are accepted."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from consistent4d_ns.errors import InputError

DEFAULT_FPS = 16.0
"""Default frames per second of a folder of frames."""
LEAST_FPS = 0.001
"""Lowest frame rate at which frames were filmed, or are taken from a video."""
TIME_SLACK = 0.1
"""How far outside 0..1 the times in a file may be: the viewer's splines overshoot. They are clamped to 0..1."""
EVEN_TOLERANCE = 0.1
"""Frames count as evenly spaced when none is further than this from its even place, as a fraction of the mean step.
Containers round times (WebM to milliseconds), which is no variable frame rate."""


@dataclass(frozen=True)
class Spacing:
    """Where all frames of a source lie in time."""

    positions: tuple[float, ...]
    """Position of each frame in units of the mean step, so from 0 to frames - 1; whole numbers when evenly spaced."""
    rate: float | None
    """Mean frames per second; None where the source does not tell."""

    @classmethod
    def even(cls, count: int, rate: float | None = None) -> Spacing:
        """Evenly spaced frames."""
        return cls(tuple(float(i) for i in range(count)), rate)

    @classmethod
    def from_stamps(cls, stamps: Sequence[float], rate: float | None = None, resolution: float = math.inf) -> Spacing:
        """From increasing times in any unit, rounded to `resolution` where known; `rate` in frames per second."""
        last = len(stamps) - 1
        if last < 1:
            return cls.even(len(stamps), rate)
        step = (stamps[-1] - stamps[0]) / last
        positions = tuple((stamp - stamps[0]) / step for stamp in stamps)
        # Two rounded times are off by at most one unit; the slack is for binary fractions.
        tolerance = min(EVEN_TOLERANCE, 1.01 * resolution / step)
        if max(abs(position - i) for i, position in enumerate(positions)) <= tolerance:
            return cls.even(len(stamps), rate)
        return cls(positions, rate)


@dataclass(frozen=True)
class FrameTimes:
    """When each frame of a sequence was filmed."""

    times: tuple[float, ...]
    """Time of each frame in [0, 1], increasing: the first is 0, the last 1; a single frame has time 0."""
    fps: float
    """Mean frames per second, at which the sequence takes as long as it was filmed in."""

    @classmethod
    def even(cls, count: int, fps: float = DEFAULT_FPS) -> FrameTimes:
        """Evenly spaced frames."""
        return cls(tuple(even_times(count).tolist()), fps)

    @classmethod
    def at(cls, positions: Sequence[float], fps: float) -> FrameTimes:
        """Frames chosen from a source, by their `Spacing.positions`; `fps` is the mean rate of the whole source.

        A single frame stays for as long as one of the source.
        """
        count, span = len(positions), positions[-1] - positions[0]
        rate = fps * (count - 1) / span if span else fps
        even = cls.even(count, rate)
        times = tuple((position - positions[0]) / span if span else 0.0 for position in positions)
        exact = all(math.isclose(ours, theirs, abs_tol=1e-6) for ours, theirs in zip(times, even.times, strict=True))
        return even if exact else cls(times, rate)

    def __len__(self) -> int:
        return len(self.times)

    @property
    def is_even(self) -> bool:
        """Whether the frames are evenly spaced."""
        return self.times == FrameTimes.even(len(self)).times

    def tensor(self) -> Float[Tensor, " frames"]:
        """The times."""
        return torch.tensor(self.times)

    def nearest(self, time: float) -> int:
        """Index of the frame whose time is nearest to a time in [0, 1]; of two equally near, the earlier."""
        after = min(bisect_left(self.times, time), len(self) - 1)
        before = max(after - 1, 0)
        return before if time - self.times[before] <= self.times[after] - time else after


def even_times(count: int) -> Float[Tensor, " frames"]:
    """Times of evenly spaced frames: the first is 0, the last 1; a single frame has time 0."""
    return torch.linspace(0.0, 1.0, count)


def checked_fps(fps: float, option: str = "--fps", least: float = 0.1) -> float:
    """The frame rate, if a video can have it.

    Args:
        fps: Frames per second.
        option: Where it comes from.
        least: The lowest; videos that are written have at least a frame every ten seconds.

    Raises:
        InputError: It cannot.
    """
    if not least <= fps <= 1000:
        raise InputError(f"{option} is {fps:g}: use a number from {least:g} to 1000.")
    return fps


def check_times(times: Iterable[float], where: str, slack: float = 0.0) -> None:
    """Raises: InputError: a time is outside 0..1 by more than `slack`."""
    for time in times:
        if not -slack <= time <= 1.0 + slack:
            raise InputError(f"time {time:g} of {where} is outside 0..1: 0 is the first frame, 1 the last.")
