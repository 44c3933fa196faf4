"""Frame times and frame rates, and which of them are accepted."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from consistent4d_ns.errors import InputError

DEFAULT_FPS = 16.0
"""Frames a second of a folder of frames where nothing else is said."""
TIME_SLACK = 0.1
"""How far outside 0..1 a file's times may be: the viewer's splines overshoot. The nearest moment is shown then."""


def frame_times(count: int) -> Float[Tensor, " frames"]:
    """Times of evenly spaced frames: the first is 0, the last 1; a single frame has time 0."""
    return torch.linspace(0.0, 1.0, count)


def nearest_frame(time: float, count: int) -> int:
    """Index of the frame, of `count` evenly spaced ones, whose time is nearest to a time in [0, 1]."""
    return round(time * (count - 1))


def checked_fps(fps: float) -> float:
    """The frames a second, if a video can have them.

    Raises:
        InputError: It cannot.
    """
    if not (math.isfinite(fps) and 0.1 <= fps <= 1000):
        raise InputError(f"--fps is {fps:g}: use a number from 0.1 to 1000.")
    return fps


def check_times(times: Iterable[float], where: str, slack: float = 0.0) -> None:
    """Raises: InputError: a time is outside 0..1 by more than `slack`."""
    for time in times:
        if not -slack <= time <= 1.0 + slack:
            raise InputError(f"time {time:g} of {where} is outside 0..1: 0 is the first frame, 1 the last.")
