"""Whether one mesh looks enough like the volume render, at frames and between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from consistent4d_ns.export.looks import Likeness, likeness
from consistent4d_ns.export.moving import MovingMesh
from consistent4d_ns.export.options import TimedFrame, spread_moments
from consistent4d_ns.export.sequence import Exporter

COMPARED = 6
"""Frames, evenly spread, at which and halfway after which it is compared."""
LEAST_OVERLAP = 0.95
"""Lowest intersection over union of its silhouettes with those of the volume render, at every moment compared."""
LEAST_PSNR = 28.0
"""Lowest PSNR in dB of its pictures against the volume render, likewise.

A volume render that shows the truth with up to 24.2 dB then loses at most 1.5 dB, if what both miss is independent.
"""
MOST_LEFT = 0.5
"""Share of what one mesh falls short that a mesh per frame may still fall short, to be written in its place."""
REACH = 1.5
"""Frames of the input between two exported ones up to which the moment halfway counts."""

T = TypeVar("T")


class Progress(Protocol):
    """Shows how many of `total` items are done while it passes them on."""

    def __call__(self, items: Iterable[T], what: str, total: int) -> Iterator[T]: ...


@dataclass(frozen=True)
class Look:
    """How one mesh looks at a moment."""

    frame: TimedFrame
    """The frame."""
    halfway: bool
    """Whether the moment halfway to the next frame is meant instead."""
    found: Likeness
    """What it looks like there."""

    @property
    def shortfall(self) -> float:
        """See `shortfall`."""
        return shortfall(self.found)

    def __str__(self) -> str:
        moment = f"halfway from {self.frame} to the next" if self.halfway else f"at {self.frame}"
        return (
            f"One mesh does not look enough like the volume render: {moment}, silhouettes overlap by "
            f"{self.found.overlap:.3f} (at least {LEAST_OVERLAP:g}) and PSNR is {self.found.psnr:.1f} dB "
            f"(at least {LEAST_PSNR:g})"
        )


def shortfall(found: Likeness) -> float:
    """How far a likeness is below its bounds, as a share of the bound that it misses most; 0 if it keeps both."""
    return max(0.0, 1.0 - found.overlap / LEAST_OVERLAP, 1.0 - found.psnr / LEAST_PSNR)


def worst_look(mesh: MovingMesh, missed: list[float], source: Exporter, progress: Progress) -> Look | None:
    """The moment at which one mesh falls short of its bounds most; None if it keeps them at all moments compared.

    Args:
        mesh: One mesh for all frames.
        missed: Share of the surface that it misses at each frame.
        source: The trained object.
        progress: Shows what is done.
    """
    moments = compared_moments(source.timeline.times, missed, source.spacing)
    looks = [_look(mesh, *moment, source) for moment in progress(moments, "Comparing looks", len(moments))]
    worst = max(looks, key=lambda look: look.shortfall)
    return worst if worst.shortfall > 0 else None


def _look(mesh: MovingMesh, index: int, halfway: bool, source: Exporter) -> Look:
    now, then = (source.timeline.times[i] for i in (index, index + halfway))
    shown = mesh.between(index) if halfway else mesh.frame(index)
    return Look(TimedFrame(index, now), halfway, likeness(source, shown, 0.5 * (now + then)))


def compared_moments(times: tuple[float, ...], missed: list[float], spacing: float) -> list[tuple[int, bool]]:
    """Frames, and whether the moment halfway to the next one is meant instead, in order.

    They are spread evenly; the frame whose surface is missed most is added. The moment halfway is left out where the
    next frame is far away in time, as vertices that move straight cannot show what happens in between.

    Args:
        times: Of all frames, in [0, 1].
        missed: Share of the surface that is missed at each.
        spacing: Time between two frames of the input.
    """
    frames = sorted({*spread_moments(len(times), COMPARED), int(np.argmax(missed))})
    near = [i for i in frames if i + 1 < len(times) and abs(times[i + 1] - times[i]) <= REACH * spacing]
    return sorted([*((i, False) for i in frames), *((i, True) for i in near)])
