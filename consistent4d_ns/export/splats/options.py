"""Options of the export of Gaussians; imports nothing slow, so that help is shown immediately."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from consistent4d_ns.export.options import in_range

Rasteriser = Literal["gsplat", "torch"]
SplatFormat = Literal["ply", "compressed.ply", "spz"]
CELLS = {False: 128, True: 96}
"""Default cells along each side of the box, by whether Gaussians are fitted: fitted ones need fewer for the same."""
FIT_STEPS = {"cuda": 300, "cpu": 0}
"""Default steps of fitting, by type of device."""


@dataclass(frozen=True)
class SplatOptions:
    """How many Gaussians there are, and whether they are fitted."""

    cells: int | None = None
    """Cells along each side of the object's box, with one Gaussian in each that is seen; 16 to 512; default: 128, or 96
    if the Gaussians are fitted."""
    fit_steps: int | None = None
    """Steps in which each frame's Gaussians are fitted to renders of the field; 0 only converts the field; at most
    100 000; default: 300 on a CUDA device, 0 on a CPU."""
    shared: bool = True
    """Fit each frame's Gaussians from those of the frame before, so that the same ones move on; a new set begins only
    where they no longer fit. --no-shared fits every frame's anew. Gaussians that are not fitted are always new ones."""
    rasteriser: Rasteriser | None = None
    """What draws the Gaussians while they are fitted: `gsplat`, which needs its CUDA kernels, or `torch`, which works
    everywhere; default: gsplat where its kernels are, else torch."""

    def check(self) -> None:
        """Raises: InputError: a value out of range."""
        if self.cells is not None:
            in_range("--cells", self.cells, 16, 512)
        if self.fit_steps is not None:
            in_range("--fit-steps", self.fit_steps, 0, 100_000)

    def steps_on(self, device: str) -> int:
        """Steps of fitting on a type of device."""
        return self.fit_steps if self.fit_steps is not None else FIT_STEPS["cuda" if device == "cuda" else "cpu"]

    def cells_for(self, steps: int) -> int:
        """Cells along each side of the box, where Gaussians are fitted in so many steps."""
        return self.cells if self.cells is not None else CELLS[steps > 0]
