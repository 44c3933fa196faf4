"""Sets of 3D Gaussians as viewers of Gaussian splatting draw them."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from consistent4d_ns.export.rotations import rotation_matrices


@dataclass(frozen=True)
class Gaussians:
    """Gaussians in world units, z up; their parameters are unbounded, so that they can be optimised."""

    means: Float[Tensor, "gaussians 3"]
    """Centres in world units."""
    quaternions: Float[Tensor, "gaussians 4"]
    """Rotations from a Gaussian's axes to the world's: w, x, y, z; not normalised."""
    log_scales: Float[Tensor, "gaussians 3"]
    """Natural logarithms of the standard deviations along a Gaussian's axes, in world units."""
    opacity_logits: Float[Tensor, " gaussians"]
    """Opacity at the centre is the sigmoid of this."""
    colour_logits: Float[Tensor, "gaussians 3"]
    """Colour in [0, 1], as displayed (sRGB), is the sigmoid of this; the same from all directions."""

    def __len__(self) -> int:
        return len(self.means)

    @property
    def opacities(self) -> Float[Tensor, " gaussians"]:
        """Opacity at the centres, in [0, 1]."""
        return torch.sigmoid(self.opacity_logits)

    @property
    def colours(self) -> Float[Tensor, "gaussians 3"]:
        """Colours in [0, 1], as displayed."""
        return torch.sigmoid(self.colour_logits)

    def __getitem__(self, chosen: Int64[Tensor, " chosen"] | Bool[Tensor, " gaussians"]) -> Gaussians:
        """Some of the Gaussians: indices, or a mask."""
        return Gaussians(**{field.name: getattr(self, field.name)[chosen] for field in fields(self)})

    def covariances(self) -> Float[Tensor, "gaussians 3 3"]:
        """Covariance matrices in squared world units."""
        axes = rotation_matrices(self.quaternions) * self.log_scales.exp()[:, None, :]
        return axes @ axes.mT
