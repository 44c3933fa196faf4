"""Options of a comparison; imports nothing slow, so that help is shown immediately."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CompareOptions:
    """What is rendered of every run, and what is measured."""

    size: int | None = None
    """Side of each picture on the page in pixels; default: that of the first run's frames, at most 256."""
    seconds: float | None = None
    """Length of the videos on the page; default: that of the first run's video, but 2 to 8 s."""
    fps: float | None = None
    """Frames per second of these videos; default: the first run's frame rate, at most 16."""
    figures: bool = True
    """Whether the input view, and novel views where there is ground truth, are measured at all times, for the page."""
