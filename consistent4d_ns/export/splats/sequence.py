"""Gaussians of all frames."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from consistent4d_ns.data.cameras import OrbitViews
from consistent4d_ns.errors import InputError
from consistent4d_ns.export.options import TimedFrame, Timeline, TimeOptions
from consistent4d_ns.export.splats.fitting import Draw, fitted, quality, target
from consistent4d_ns.export.splats.gaussians import Gaussians
from consistent4d_ns.export.splats.options import Rasteriser, SplatOptions
from consistent4d_ns.export.splats.raster import draw, draw_with_gsplat, gsplat_fault
from consistent4d_ns.export.splats.seeding import each, seed, views_around
from consistent4d_ns.model import Consistent4DModel
from consistent4d_ns.runs import Run

FOLLOWING = 0.5
"""Steps of fitting of a frame that continues from the one before, as a share of those of a new set."""
ALLOWED_LOSS = 5.0
"""PSNR in dB that a frame may lose against the first one of its set; where it would lose more, a new set begins."""
SIZE = 256
"""Side in pixels of the images to which Gaussians are fitted."""
LOOKING_VIEWS = 32
"""Views around the object; what none of them sees gets no Gaussian, and they are what Gaussians are fitted to."""


@dataclass(frozen=True)
class SplatFrame:
    """The Gaussians of one frame; those of one set are the same ones in the same order, which move on."""

    gaussians: Gaussians
    """Where they are, and what they look like."""
    begin: int
    """Index of the frame with which their set begins."""
    quality: float
    """PSNR in dB against the volume render, in that frame, of the views to which they are fitted; NaN if not fitted."""


@dataclass(frozen=True)
class Splatter:
    """Makes Gaussians of a trained object."""

    model: Consistent4DModel
    """The trained field."""
    timeline: Timeline
    """The frames to make."""
    views: OrbitViews
    """Where the object is looked at from."""
    cells: int
    """Cells along each side of the object's box."""
    steps: int
    """Steps of fitting; 0 for none."""
    shared: bool
    """Whether fitted Gaussians are followed from frame to frame."""
    draw: Draw
    """What draws Gaussians while they are fitted."""
    way: str
    """One line about how Gaussians are made."""

    def frames(self) -> Iterator[SplatFrame]:
        """The Gaussians of each frame, one frame in memory at a time.

        Raises:
            InputError: nothing is visible at a time.
        """
        before = None
        for frame in self.timeline:
            before = self.at(frame, before)
            yield before

    def at(self, frame: TimedFrame, before: SplatFrame | None = None) -> SplatFrame:
        """The Gaussians of one frame, if they can be those of the frame `before`.

        Raises:
            InputError: nothing is visible then.
        """
        if not self.steps:
            return SplatFrame(self.seeded(frame), frame.index, math.nan)
        targets = [target(self.model, view, frame.time, SIZE) for view in each(self.views)]
        if self.shared and before is not None:
            steps = max(1, round(FOLLOWING * self.steps))
            followed = fitted(before.gaussians, targets, steps, self.draw)
            if quality(followed, targets, self.draw) > before.quality - ALLOWED_LOSS:
                return replace(before, gaussians=followed)
        gaussians = fitted(self.seeded(frame), targets, self.steps, self.draw)
        return SplatFrame(gaussians, frame.index, quality(gaussians, targets, self.draw))

    def seeded(self, frame: TimedFrame) -> Gaussians:
        """New Gaussians of one frame, not fitted.

        Raises:
            InputError: nothing is visible then.
        """
        gaussians = seed(self.model, self.cells, self.views, frame.time)
        if not len(gaussians):
            raise InputError(f"{frame}: nothing is visible; leave that time out with --times, or train for longer.")
        return gaussians


def splatter(run: Run, options: SplatOptions, times: TimeOptions) -> Splatter:
    """Prepare the export of a run.

    Raises:
        InputError: a rasteriser is asked for that cannot be used, or that nothing is fitted with.
    """
    model, data = run.pipeline.model, run.pipeline.datamanager
    steps = options.steps_on(model.device.type)
    if options.rasteriser and not steps:
        raise InputError(f"--rasteriser {options.rasteriser} is for fitting: give --fit-steps above 0 too.")
    draws, way = drawing(options.rasteriser, model.device.type) if steps else (draw, "")
    views = views_around(data.input_view, LOOKING_VIEWS).to(model.device)
    return Splatter(
        model=model,
        timeline=times.choose(data.num_frames, data.fps),
        views=views,
        cells=options.cells_for(steps),
        steps=steps,
        shared=options.shared,
        draw=draws,
        way=f"fitted in {steps} steps {way}" if steps else "converted from the field, not fitted (--fit-steps 0)",
    )


def drawing(rasteriser: Rasteriser | None, device: str) -> tuple[Draw, str]:
    """What draws Gaussians on a type of device, and words that say so.

    Raises:
        InputError: gsplat is asked for and cannot be used.
    """
    if rasteriser == "torch" or (rasteriser is None and device != "cuda"):
        return draw, "with the rasteriser in PyTorch"
    fault = gsplat_fault() if device == "cuda" else f"the run is on a device of type {device}"
    if fault is None:
        return draw_with_gsplat, "with gsplat"
    if rasteriser == "gsplat":
        raise InputError(f"--rasteriser gsplat needs gsplat's CUDA kernels, but {fault}: give --rasteriser torch.")
    return draw, f"with the rasteriser in PyTorch, because gsplat's CUDA kernels cannot be used: {fault}"
