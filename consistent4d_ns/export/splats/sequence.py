"""Gaussians of all frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from consistent4d_ns.data.cameras import OrbitViews
from consistent4d_ns.errors import InputError
from consistent4d_ns.export.options import TimedFrame, Timeline, TimeOptions
from consistent4d_ns.export.splats.fitting import Draw, fitted, target
from consistent4d_ns.export.splats.gaussians import Gaussians
from consistent4d_ns.export.splats.options import Rasteriser, SplatOptions
from consistent4d_ns.export.splats.raster import draw, draw_with_gsplat, gsplat_fault
from consistent4d_ns.export.splats.seeding import each, seed, views_around
from consistent4d_ns.model import Consistent4DModel
from consistent4d_ns.runs import Run

LOOKING_VIEWS = 32
"""Views around the object; what none of them sees gets no Gaussian, and they are what Gaussians are fitted to."""


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
    draw: Draw
    """What draws Gaussians while they are fitted."""
    way: str
    """One line about how Gaussians are made."""

    def frames(self) -> Iterator[Gaussians]:
        """The Gaussians of each frame, one frame in memory at a time.

        Raises:
            InputError: nothing is visible at a time.
        """
        return map(self.at, self.timeline)

    def at(self, frame: TimedFrame) -> Gaussians:
        """The Gaussians of one frame.

        Raises:
            InputError: nothing is visible then.
        """
        gaussians = seed(self.model, self.cells, self.views, frame.time)
        if not len(gaussians):
            raise InputError(f"{frame}: nothing is visible; leave that time out with --times, or train for longer.")
        if not self.steps:
            return gaussians
        targets = [target(self.model, view, frame.time) for view in each(self.views)]
        return fitted(gaussians, targets, self.steps, self.draw)


def splatter(run: Run, options: SplatOptions, times: TimeOptions) -> Splatter:
    """Prepare the export of a run.

    Raises:
        InputError: gsplat is asked for and cannot be used.
    """
    model, data = run.pipeline.model, run.pipeline.datamanager
    steps = options.steps_on(model.device.type)
    draws, way = drawing(options.rasteriser, model.device.type) if steps else (draw, "")
    views = views_around(data.input_view, LOOKING_VIEWS).to(model.device)
    return Splatter(
        model=model,
        timeline=times.choose(data.num_frames, data.fps),
        views=views,
        cells=options.cells_for(steps),
        steps=steps,
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
