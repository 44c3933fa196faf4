"""Ground truth of the toy for any view and frame."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int64
from torch import Tensor

from consistent4d_ns.data.cameras import orbit_poses
from consistent4d_ns.data.images import composite_white
from consistent4d_ns.data.times import even_times
from consistent4d_ns.toy.render import render
from consistent4d_ns.toy.sequence import FOVY


@dataclass(frozen=True)
class ToyTruth:
    """Renders true images on demand, as `guidance.exact.ExactScoreGuidance` needs them."""

    size: int
    """Width and height of the images in pixels."""
    frames: int
    """Number of frames of the clip, at least 2."""
    fovy: float = FOVY
    """Vertical field of view in degrees."""
    samples_per_side: int = 2
    """Rays per pixel and axis."""

    def __call__(
        self,
        elevation: Float[Tensor, " views"],
        azimuth: Float[Tensor, " views"],
        distance: Float[Tensor, " views"],
        frames: Int64[Tensor, " views"],
    ) -> Float[Tensor, "views 3 size size"]:
        """White-composited images in [0, 1]; angles in degrees, distance in world units."""
        poses = orbit_poses(elevation, azimuth, distance)
        times = even_times(self.frames)[frames.cpu()]
        return composite_white(render(poses, self.fovy, self.size, times, self.samples_per_side))
