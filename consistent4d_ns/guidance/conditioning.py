"""What a Zero123 prior is conditioned on: features of the input frames (method.md section 5.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from consistent4d_ns.guidance.networks import Zero123Networks


@dataclass(frozen=True)
class Conditions:
    """Features of conditioning images."""

    tokens: Float[Tensor, "images tokens width"]
    """Image-encoder tokens, or, once joined with a camera, the UNet's context."""
    latents: Float[Tensor, "images c h w"]
    """Means of the VAE's posterior, not scaled."""

    def __getitem__(self, indices: Int64[Tensor, " views"]) -> Conditions:
        return Conditions(self.tokens[indices], self.latents[indices])


def clip_input(
    images: Float[Tensor, "images 3 size size"], networks: Zero123Networks
) -> Float[Tensor, "images 3 clip clip"]:
    """Images in [0, 1] as input of the image encoder: bicubic (aligned corners, no antialias), normalised."""
    side = networks.clip_size
    resized = F.interpolate(images, (side, side), mode="bicubic", align_corners=True)
    mean, std = (images.new_tensor(v)[:, None, None] for v in (networks.clip_mean, networks.clip_std))
    return (resized - mean) / std


def image_tokens(
    images: Float[Tensor, "images 3 size size"], networks: Zero123Networks
) -> Float[Tensor, "images tokens width"]:
    """The image encoder's tokens that enter the UNet's context, each normalised and projected like the embedding."""
    encoder: Any = networks.image_encoder
    sequence = encoder.vision_model(clip_input(images, networks)).last_hidden_state
    return encoder.visual_projection(encoder.vision_model.post_layernorm(sequence[:, : networks.image_tokens]))
