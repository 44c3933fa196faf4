"""Which frames of a video are taken: pure functions of times."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

from consistent4d_ns.data.times import DEFAULT_FPS, Spacing
from consistent4d_ns.errors import InputError
from consistent4d_ns.preparing.options import MOST_FRAMES, SelectionOptions

ROUNDING = 1e-3
"""Seconds by which a frame may lie outside of a time range: containers round times to milliseconds."""


def seconds_of(spacing: Spacing) -> tuple[float, ...]:
    """When each frame of a source is shown, in seconds since the first one."""
    rate = spacing.rate or DEFAULT_FPS
    return tuple(position / rate for position in spacing.positions)


def choose(seconds: Sequence[float], options: SelectionOptions, source: str) -> tuple[int, ...]:
    """Indices of the chosen frames, increasing.

    Args:
        seconds: When each frame is shown, increasing from 0.
        options: What is asked for.
        source: Name of the video in messages.

    Raises:
        InputError: No frame lies in the time range, or the frame rate asks for too many.
    """
    start = options.start or 0.0
    end = seconds[-1] if options.end is None else options.end
    inside = [i for i, time in enumerate(seconds) if start - ROUNDING <= time <= end + ROUNDING]
    if not inside:
        raise InputError(
            f"{source} has no frame between {start:g} and {end:g} s (its last one is at {seconds[-1]:g} s): "
            "give another --start or --end"
        )
    times = [seconds[i] for i in inside]
    wanted = evenly(times[0], times[-1], options.frames) if options.fps is None else at_rate(times, options.fps)
    chosen = sorted({inside[nearest(times, time)] for time in wanted})
    if len(chosen) > MOST_FRAMES:
        raise InputError(f"--fps {options.fps:g} takes more than {MOST_FRAMES} frames of {source}: give a lower one.")
    return tuple(chosen)


def evenly(first: float, last: float, count: int) -> list[float]:
    """Times from the first to the last; the first alone if there is one."""
    return [first + (last - first) * k / max(count - 1, 1) for k in range(count)]


def at_rate(times: Sequence[float], rate: float) -> list[float]:
    """Times at a rate from the first frame on, of which only those matter that are next to a frame."""
    places = [(time - times[0]) * rate for time in times]
    last = int(places[-1] + ROUNDING)
    ticks = {min(tick, last) for place in places for tick in (math.floor(place), math.ceil(place))}
    return [times[0] + tick / rate for tick in sorted(ticks)]


def nearest(times: Sequence[float], time: float) -> int:
    """Index of the increasing time that is nearest; of two equally near, the earlier."""
    after = min(bisect_left(times, time), len(times) - 1)
    before = max(after - 1, 0)
    return before if time - times[before] <= times[after] - time else after
