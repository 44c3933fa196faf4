"""Options of camera paths; imports nothing slow, so that help is shown immediately."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["orbit", "frozen-orbits", "fixed-view", "orbit-in-time", "evaluation-views"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""One orbit around the object at a fixed time; the same at several times; a fixed view while time passes; one orbit
while time passes; the four views of the paper's evaluation, one after the other, while time passes in each."""


@dataclass(frozen=True)
class PathOptions:
    """The trajectory of a camera path, its length and its image size."""

    frames: int | None = None
    """Frames of one orbit or one passage of time; default: as many as the video takes at --fps, and 64 around an
    object that does not move."""
    fps: float | None = None
    """Frames per second; default: the video's own."""
    elevation: float | None = None
    """Degrees above the horizontal plane, -90 to 90; default: the input camera's (evaluation-views: 0)."""
    azimuth: float | None = None
    """Degrees from the input view at which an orbit begins or the fixed view stands; default: 0."""
    distance: float | None = None
    """World units from the object's centre, 1 to 100; default: the input camera's."""
    fovy: float | None = None
    """Vertical field of view in degrees, 1 to 179; default: the input camera's."""
    size: int | tuple[int, int] | None = None
    """Side of a square image in pixels, or width and height; default: the frames' size."""
    times: tuple[float, ...] | None = None
    """Times of orbit (one; default: 0) and of frozen-orbits (default: 0 0.25 0.5 0.75 1), from 0, the first frame, to
    1, the last."""
