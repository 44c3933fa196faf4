"""The networks of a Zero123 prior and their constants, whatever layout they were loaded from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from jaxtyping import Float
from torch import Tensor, nn

from consistent4d_ns.errors import InputError
from consistent4d_ns.guidance.camera_convention import CameraConvention
from consistent4d_ns.guidance.diffusion import alphas_cumprod

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPVisionModelWithProjection

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""OpenAI CLIP's image mean, RGB in [0, 1]."""
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""OpenAI CLIP's image standard deviation, RGB in [0, 1]."""
CAMERA_NUMBERS = 4
"""Length of the camera vector."""


class LatentModel:
    """A latent diffusion model, whatever it is conditioned on. All sizes follow from its networks' configurations."""

    unet: UNet2DConditionModel
    """Predicts noise, or what noise follows from."""
    vae: AutoencoderKL
    """Images in [-1, 1] to latents and back."""
    alphas: Float[Tensor, " timesteps"]
    """Cumulative product of the noise schedule's alphas (remaining fraction of signal variance), float64."""

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image's latent."""
        side = self.unet.config["sample_size"]
        return self.vae.config["latent_channels"], side, side

    @property
    def image_size(self) -> int:
        """Side of the square images in pixels."""
        return self.unet.config["sample_size"] * vae_factor(len(self.vae.config["block_out_channels"]))

    @property
    def scaling_factor(self) -> float:
        """Factor on the latents before diffusion."""
        return self.vae.config["scaling_factor"]

    def check_numbers(self, source: str) -> None:
        """Raises: InputError: a size or the factor on the latents is no number, or out of range; names `source`."""
        if not isinstance(self.unet.config["sample_size"], int):
            raise InputError(f"{source}: unet/config.json must give sample_size, the side of the latents, as a number.")
        factor = self.vae.config["scaling_factor"]
        if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 0.0 < factor < math.inf:
            raise InputError(f"{source}: scaling_factor in vae/config.json is {factor}, not a finite number above 0.")


@dataclass
class Zero123Networks(LatentModel):
    """A view-conditioned latent diffusion model (Liu et al. 2023; method.md sections 5.1 and 5.2).

    The UNet's context consists of the first `image_tokens`
    tokens of the image encoder (class token first, then patches row by row). Each token is normalised and projected
    like CLIP's image embedding, concatenated with the camera vector, and mapped by `projection`. Zero123 uses a single
    token, which is the image embedding.
    """

    unet: UNet2DConditionModel
    """Predicts the noise from [noisy latent, condition latent] and the context."""
    vae: AutoencoderKL
    """Images in [-1, 1] to latents and back."""
    image_encoder: CLIPVisionModelWithProjection
    """Tokens of the conditioning image."""
    projection: nn.Linear
    """[token, camera vector] to the UNet's context width."""
    image_tokens: int = 1
    """Number of tokens of the image encoder in the context."""
    clip_mean: tuple[float, ...] = CLIP_MEAN
    """The image encoder's RGB mean."""
    clip_std: tuple[float, ...] = CLIP_STD
    """The image encoder's RGB standard deviation."""
    alphas: Float[Tensor, " timesteps"] = field(default_factory=alphas_cumprod)
    """Cumulative product of the noise schedule's alphas (remaining fraction of signal variance), float64."""
    camera_convention: CameraConvention | None = None
    """Meaning of the camera vector's fourth entry, if the prior's files state it."""

    @property
    def clip_size(self) -> int:
        """Side in pixels of the image encoder's square input."""
        return cast(int, self.image_encoder.config.image_size)

    def check(self, source: str) -> None:
        """Check that the networks form a Zero123 prior.

        Raises:
            InputError: They do not; the message names `source`, the part, and the expected value.
        """
        unet, width = self.unet.config, self.image_encoder.config.projection_dim
        latent, context = self.vae.config["latent_channels"], unet["cross_attention_dim"]
        positions = self.image_encoder.vision_model.embeddings.position_embedding.num_embeddings
        expectations = {
            "UNet input channels (noisy and condition latent)": (unet["in_channels"], 2 * latent),
            "UNet output channels": (unet["out_channels"], latent),
            "camera projection inputs (image embedding and 4 camera numbers)": (
                self.projection.in_features,
                width + CAMERA_NUMBERS,
            ),
            "camera projection outputs (UNet context width)": (self.projection.out_features, context),
        }
        for what, (found, expected) in expectations.items():
            if found != expected:
                raise InputError(f"{source}: not a Zero123 prior, {what}: {found}, expected {expected}.")
        self.check_numbers(source)
        if self.image_tokens not in range(1, positions + 1):
            raise InputError(f"{source}: image_tokens is {self.image_tokens}, the encoder yields 1 to {positions}.")


def vae_factor(levels: int) -> int:
    """Image pixels per latent pixel along one side, of a VAE with this number of levels."""
    return 2 ** (levels - 1)
