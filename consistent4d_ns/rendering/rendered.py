"""The result of rendering a ray bundle, for the losses and as images."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Rendering:
    """A rendered bundle of rays, all cascade levels, with what the losses need."""

    rgb: Float[Tensor, "levels rays 3"]
    """Colour on white."""
    accumulation: Float[Tensor, "levels rays"]
    """Opacity in [0, 1]."""
    expected_depth: Float[Tensor, "levels rays"]
    """Sum of weight times distance, not divided by the accumulation."""
    depth: Float[Tensor, "levels rays"]
    """Distance to the surface (see `compositing.normalised_depth`)."""
    depth_variance: Float[Tensor, "levels rays"] | None
    """Variance of the distance around `depth`; None when no loss needs it."""
    weights: Float[Tensor, "levels samples"]
    """Rendering weight of each sample."""
    kept: Float[Tensor, " samples"] | None
    """1 for samples, 0 for padding (see `PackedSamples.padded`); None where there is none."""
    normals: Float[Tensor, "levels samples 3"] | None
    """Normal at each sample; None when no loss needs it."""
    shifted_normals: Float[Tensor, "levels samples 3"] | None
    """Normal at a slightly shifted point; None when no loss needs it."""
    directions: Float[Tensor, "samples 3"]
    """Viewing direction at each sample."""
    normal_map: Float[Tensor, "levels rays 3"] | None
    """Normals as colours, (n + 1) / 2 times the accumulation; None when neither a loss nor an image needs it."""

    @property
    def mean_opacity(self) -> Float[Tensor, ""]:
        """Mean opacity of the rays of the finest level, without gradients."""
        return self.accumulation[-1].detach().mean()

    @property
    def images(self) -> dict[str, Float[Tensor, "rays _"]]:
        """Outputs per ray by name: rgb, accumulation, depth, expected_depth and normals of the finest level.

        Then colour, accumulation and depth of each level l as `rgb_l`, `accumulation_l` and `depth_l`.
        """
        outputs = {
            "rgb": self.rgb[-1],
            "accumulation": self.accumulation[-1, :, None],
            "depth": self.depth[-1, :, None],
            "expected_depth": self.expected_depth[-1, :, None],
        }
        if self.normal_map is not None:
            outputs["normals"] = self.normal_map[-1]
        for level in range(len(self.rgb)):
            outputs[f"rgb_{level}"] = self.rgb[level]
            outputs[f"accumulation_{level}"] = self.accumulation[level, :, None]
            outputs[f"depth_{level}"] = self.depth[level, :, None]
        return outputs
