"""The interface between training and a guidance, independent of its network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class GuidanceDraws:
    """All random numbers of one distillation step."""

    posterior_noise: Float[Tensor, "levels views c h w"]
    """Standard normal; samples the latent from the VAE's posterior."""
    timesteps: Int64[Tensor, "levels views"]
    """Timesteps of the noise schedule."""
    noise: Float[Tensor, "levels views c h w"]
    """Standard normal; added to the latents, to be predicted by the prior."""


class Guidance(Protocol):
    """A frozen prior that distils into rendered images. Not an nn.Module: it stays out of checkpoints."""

    latent_shape: tuple[int, int, int]
    """Channels, height and width of one image's latent."""
    num_timesteps: int
    """Length of the noise schedule."""
    undefined_predictions: Int64[Tensor, ""]
    """Number of non-finite noise predictions so far; their gradients were discarded, and their steps are skipped."""

    def loss(
        self,
        images: Float[Tensor, "levels views 3 height width"],
        poses: Float[Tensor, "views 4"],
        frames: Int64[Tensor, " views"],
        draws: GuidanceDraws,
        scale: float,
    ) -> Float[Tensor, " levels"]:
        """Distillation loss of each level, differentiable with respect to `images`.

        Args:
            images: Rendered images of every cascade level in [0, 1] on white.
            poses: Camera vectors as of `cameras.relative_pose`.
            frames: Index of each view's input frame.
            draws: The random numbers.
            scale: Classifier-free guidance scale.
        """
        ...


@dataclass(frozen=True)
class Start:
    """Where sampling starts, in place of pure noise at the schedule's end."""

    images: Float[Tensor, "views 3 height width"] | None
    """Images in [0, 1] on white of any size, to which noise is added; None: pure noise in their place."""
    strength: float
    """Noise level at which sampling starts, as a fraction of the noise schedule's length, in (0, 1]."""


@runtime_checkable
class ViewSampler(Protocol):
    """A guidance from which novel views can be sampled."""

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
        """Samples of novel views, in [0, 1].

        Args:
            poses: Camera vectors as of `cameras.relative_pose`.
            frames: Index of each view's input frame.
            scale: Classifier-free guidance scale.
            generator: Source of the initial noise.
            steps: Sampling steps.
            temperature: Standard deviation of the initial noise. 1 samples the prior's whole distribution; towards 0
                samples approach its mean, with fewer details and smaller errors.
            start: Images and noise level to start from; None: pure noise.
        """
        ...

    def end_sampling(self) -> None:
        """Free what only `sample` needs, which is not called any more; may be called again."""
        ...


def draw(
    guidance: Guidance, levels: int, views: int, timestep_range: tuple[int, int], generator: torch.Generator
) -> GuidanceDraws:
    """The random numbers of one step, on the generator's device; every level and view has its own.

    Args:
        guidance: Gives the shape of the latents.
        levels: Cascade levels.
        views: Novel views.
        timestep_range: Least and greatest timestep, inclusive.
        generator: Source of all draws.
    """
    device, shape = generator.device, (levels, views, *guidance.latent_shape)
    low, high = timestep_range
    return GuidanceDraws(
        posterior_noise=torch.randn(shape, generator=generator, device=device),
        timesteps=torch.randint(low, high + 1, (levels, views), generator=generator, device=device),
        noise=torch.randn(shape, generator=generator, device=device),
    )
