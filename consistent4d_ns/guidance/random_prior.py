"""Zero123 networks with random weights: full size to measure time and memory, small for tests."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from consistent4d_ns.guidance.networks import CAMERA_NUMBERS, Zero123Networks

SIZES: dict[str, dict[str, dict[str, Any]]] = {
    # Zero123-XL: Stable Diffusion's UNet with twice the input channels, its VAE, CLIP ViT-L/14.
    "full": {
        "unet": {
            "sample_size": 32,
            "in_channels": 8,
            "block_out_channels": (320, 640, 1280, 1280),
            "cross_attention_dim": 768,
            "attention_head_dim": 8,
        },
        "vae": {
            "sample_size": 256,
            "block_out_channels": (128, 256, 512, 512),
            "layers_per_block": 2,
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4,
        },
        "image_encoder": {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": 224,
            "patch_size": 14,
            "projection_dim": 768,
        },
        "prior": {"image_tokens": 1},
    },
    # Sizes, downsampling, scale and token count differ from Zero123, so that tests notice assumptions about them.
    "small": {
        "unet": {
            "sample_size": 16,
            "in_channels": 8,
            "block_out_channels": (32, 64),
            "layers_per_block": 1,
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "cross_attention_dim": 24,
            "attention_head_dim": 8,
        },
        "vae": {
            "sample_size": 64,
            "block_out_channels": (32, 32, 64),
            "layers_per_block": 1,
            "down_block_types": ("DownEncoderBlock2D",) * 3,
            "up_block_types": ("UpDecoderBlock2D",) * 3,
            "scaling_factor": 0.6,
        },
        "image_encoder": {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 1,
            "image_size": 64,
            "patch_size": 16,
            "projection_dim": 24,
        },
        "prior": {"image_tokens": 17},
    },
}
"""Arguments of the networks' constructors."""


def random_networks(size: Literal["full", "small"], device: torch.device | str, seed: int) -> Zero123Networks:
    """An untrained prior in float32, the same for the same seed and kind of device.

    Args:
        size: "full" has Zero123-XL's sizes; "small" about a million parameters, 64-pixel images and 17 image tokens.
        device: Where the weights are drawn and stay.
        seed: Seed of the weights; the caller's random state is left as it was.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    device, settings = torch.device(device), SIZES[size]
    context, image = settings["unet"]["cross_attention_dim"], CLIPVisionConfig(**settings["image_encoder"])
    with torch.random.fork_rng([device] if device.type == "cuda" else []), device:
        torch.manual_seed(seed)
        return Zero123Networks(
            unet=UNet2DConditionModel(**settings["unet"]),
            vae=AutoencoderKL(**settings["vae"]),
            image_encoder=CLIPVisionModelWithProjection(image),
            projection=nn.Linear(image.projection_dim + CAMERA_NUMBERS, context),
            **settings["prior"],
        )
