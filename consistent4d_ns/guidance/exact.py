"""Guidance by an ideal prior that knows the true object, to test everything except the diffusion model.

Zero123 considers many images of a view possible; this prior only one, the true image z* of that view and frame. Its
score is exact: for x_t = sqrt(ac) z + sqrt(1 - ac) eps it predicts the noise (x_t - sqrt(ac) z*) / sqrt(1 - ac). If
cameras, times and gradients are right, its distillation can only lead to the true object.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from consistent4d_ns.data.cameras import OrbitViews, absolute_view
from consistent4d_ns.guidance.base import GuidanceDraws, Start
from consistent4d_ns.guidance.config import TextGuidanceConfig
from consistent4d_ns.guidance.diffusion import add_noise, alphas_cumprod, distillation_loss, guided
from consistent4d_ns.guidance.view_prompts import view_kinds

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


class ExactPromptGuidance(ExactScoreGuidance):
    """Score distillation from the exact score of what a prompt tells: the kind of a view, and not its camera.

    A text-to-image prior that reads "back view" considers all images from behind possible. This one considers exactly
    the true images from some cameras possible, for each kind of view those that belong to it (see `view_kinds`), all of
    them equally. The score of such a mixture is exact, too: the expected image given a noisy one is the mean of the
    images, weighted by how likely each of them becomes that noisy one.
    """

    def __init__(
        self,
        truth: Truth,
        condition: OrbitViews,
        cameras: OrbitViews,
        config: TextGuidanceConfig,
        latent_size: int = 32,
    ) -> None:
        """
        Args:
            truth: Gives the true image of a view and frame; only the first frame is asked for.
            condition: The front view, which `poses` are relative to.
            cameras: From where the object is seen in the images that are possible.
            config: Where the kinds of views end.
            latent_size: Width and height of the latents in pixels.
        """
        super().__init__(truth, condition, latent_size)
        self.config = config
        images = truth(
            cameras.elevation, cameras.azimuth, cameras.distance, torch.zeros(len(cameras), dtype=torch.int64)
        )
        self._kinds = view_kinds(cameras.elevation, cameras.azimuth - condition.azimuth, config)
        self._possible: Float[Tensor, "images c h w"] = self.encode(images)

    def loss(
        self,
        images: Float[Tensor, "levels views 3 height width"],
        poses: Float[Tensor, "views 4"],
        frames: Int64[Tensor, " views"],
        draws: GuidanceDraws,
        scale: float,
    ) -> Float[Tensor, " levels"]:
        """The distillation loss of each level (see `ExactScoreGuidance.loss`).

        At a guidance scale other than 1, the unconditional prediction is that of the images of all kinds.
        """
        latents = self.encode(images)
        kept = self._alphas[draws.timesteps.cpu()].to(latents)
        elevation, azimuth, _ = absolute_view(poses, self.condition)
        kinds = view_kinds(elevation, azimuth - self.condition.azimuth.to(azimuth), self.config)
        with torch.no_grad():
            noisy, own = add_noise(latents, draws.noise, kept), kinds[:, None] == self._kinds.to(kinds)
            conditional = exact_noise(noisy, self._expected(noisy, kept, own), kept)
            unconditional = exact_noise(noisy, self._expected(noisy, kept, torch.ones_like(own)), kept)
            predicted = guided(unconditional, conditional, scale, self.config.rescale)
        return distillation_loss(latents, predicted, draws.noise, kept)

    def _expected(
        self,
        noisy: Float[Tensor, "levels views c h w"],
        kept: Float[Tensor, "levels views"],
        own: Bool[Tensor, "views images"],
    ) -> Float[Tensor, "levels views c h w"]:
        """The mean of the possible images that are each view's `own`, given noisy latents."""
        possible = self._possible.to(noisy)
        means = kept.sqrt()[..., None, None] * possible.flatten(1)
        distances = torch.cdist(noisy.flatten(2)[:, :, None], means)[:, :, 0].square()
        likelihoods = (-0.5 * distances / (1 - kept)[..., None]).masked_fill(~own, -math.inf)
        return torch.einsum("lvi,ichw->lvchw", likelihoods.softmax(dim=-1), possible)
