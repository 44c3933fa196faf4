"""Guidance by an ideal prior that knows the true object, to test everything except the diffusion model.

Zero123 considers many images of a view possible; this prior only one, the true image z* of that view and frame. Its
score is exact: for x_t = sqrt(ac) z + sqrt(1 - ac) eps it predicts the noise (x_t - sqrt(ac) z*) / sqrt(1 - ac). If
cameras, times and gradients are right, its distillation can only lead to the true object.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from consistent4d_ns.data.cameras import OrbitViews, absolute_view
from consistent4d_ns.guidance.base import GuidanceDraws, Start
from consistent4d_ns.guidance.diffusion import add_noise, alphas_cumprod, distillation_loss

Truth: TypeAlias = Callable[
    [Float[Tensor, " views"], Float[Tensor, " views"], Float[Tensor, " views"], Int64[Tensor, " views"]],
    Float[Tensor, "views 3 h w"],
]
"""White-composited true images in [0, 1] by elevation and azimuth in degrees, distance, and frame number."""


class ExactScoreGuidance:
    """Score distillation from the true images; the latents are small images in [-1, 1]."""

    def __init__(self, truth: Truth, condition: OrbitViews, latent_size: int = 32) -> None:
        """
        Args:
            truth: Gives the true image of a view and frame, of any size.
            condition: The view of the input camera, which `poses` are relative to.
            latent_size: Width and height of the latents in pixels.
        """
        self.truth = truth
        self.condition = condition
        self.latent_shape: tuple[int, int, int] = (3, latent_size, latent_size)
        self._alphas = alphas_cumprod()
        self.num_timesteps = len(self._alphas)
        self.undefined_predictions = torch.zeros((), dtype=torch.int64)  # an exact score is always finite

    def loss(
        self,
        images: Float[Tensor, "levels views 3 height width"],
        poses: Float[Tensor, "views 4"],
        frames: Int64[Tensor, " views"],
        draws: GuidanceDraws,
        scale: float,
    ) -> Float[Tensor, " levels"]:
        """The distillation loss of each level (method.md section 5.3).

        Args:
            images: Rendered images on white in [0, 1].
            poses: Camera vectors of the views as of `cameras.relative_pose`.
            frames: Frame number of each view.
            draws: Timesteps and noise. The posterior noise has no effect: encoding is deterministic.
            scale: Has no effect: the unconditional prediction is the same.
        """
        latents = self.encode(images)
        kept = self._alphas[draws.timesteps.cpu()].to(latents)
        with torch.no_grad():
            truth = self.encode(self.truth(*absolute_view(poses, self.condition), frames).to(images))
            predicted = exact_noise(add_noise(latents, draws.noise, kept), truth, kept)
        return distillation_loss(latents, predicted, draws.noise, kept)

    def sample(
        self,
        poses: Float[Tensor, "views 4"],
        frames: Int64[Tensor, " views"],
        *,
        scale: float,
        generator: torch.Generator,
        steps: int = 50,
        temperature: float = 1.0,
        start: Start | None = None,
    ) -> Float[Tensor, "views 3 size size"]:
        """The true images, of the latents' size (see `base.ViewSampler.sample`).

        An exact score leads to them from any noise, start and scale, and in any number of steps.
        """
        return (self.encode(self.truth(*absolute_view(poses, self.condition), frames)) + 1) / 2

    def end_sampling(self) -> None:
        """Nothing is kept for sampling alone."""

    def encode(self, images: Float[Tensor, "*batch 3 height width"]) -> Float[Tensor, "*batch 3 h w"]:
        """Latents of images in [0, 1]: resized bilinearly, scaled to [-1, 1]."""
        small = F.interpolate(images.flatten(0, -4), self.latent_shape[1:], mode="bilinear", align_corners=False)
        return 2 * small.view(*images.shape[:-3], *self.latent_shape) - 1


def exact_noise(
    noisy: Float[Tensor, "levels views c h w"],
    truth: Float[Tensor, "views c h w"],
    kept: Float[Tensor, "levels views"],
) -> Float[Tensor, "levels views c h w"]:
    """The noise in `noisy` if its signal is `truth`; `kept` = ac, the signal's share of the variance."""
    ac = kept[..., None, None, None]
    return (noisy - ac.sqrt() * truth) / (1 - ac).sqrt()
