"""The bundled prior's networks before training: a small Zero123 for images of 64 pixels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from consistent4d_ns.errors import InputError
from consistent4d_ns.guidance.networks import CAMERA_NUMBERS, Zero123Networks

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

IMAGE_SIZE = 64
"""Side of the images in pixels."""
CONTEXT = 192
"""Width of the image tokens and of the UNet's context."""

UNET: dict[str, Any] = {
    "sample_size": 16,
    "in_channels": 16,
    "out_channels": 8,
    "block_out_channels": (160, 224),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D",) * 2,
    "mid_block_type": None,
    "up_block_types": ("CrossAttnUpBlock2D",) * 2,
    "transformer_layers_per_block": (1, 2),
    "cross_attention_dim": CONTEXT,
    # The number of heads, despite its name; each has 32 channels.
    "attention_head_dim": (5, 7),
}
"""15.6 M parameters, 3.4 GFLOP a sample. Most of it is attention: what a view shows moves far between two views."""
VAE: dict[str, Any] = {
    "sample_size": IMAGE_SIZE,
    "latent_channels": 8,
    "block_out_channels": (32, 48, 96),
    "layers_per_block": 1,
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "norm_num_groups": 8,
    "mid_block_add_attention": False,
}
"""1.5 M parameters; 16 x 16 latents of 8 channels."""
IMAGE_ENCODER: dict[str, Any] = {
    "image_size": IMAGE_SIZE,
    "patch_size": 8,
    "hidden_size": 192,
    "intermediate_size": 768,
    "num_hidden_layers": 5,
    "num_attention_heads": 6,
    "projection_dim": CONTEXT,
}
"""2.3 M parameters; all its tokens (class and 8 x 8 patches) enter the UNet's context."""

LATENT = (UNET["out_channels"], UNET["sample_size"], UNET["sample_size"])
"""Shape of a latent."""


def new_networks(seed: int) -> Zero123Networks:
    """The untrained prior in float32 on the CPU, the same for the same seed; the caller's random state is kept."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return Zero123Networks(
            unet=UNet2DConditionModel(**UNET),
            vae=new_autoencoder(seed),
            image_encoder=CLIPVisionModelWithProjection(CLIPVisionConfig(**IMAGE_ENCODER)),
            projection=nn.Linear(CONTEXT + CAMERA_NUMBERS, CONTEXT),
            image_tokens=(IMAGE_SIZE // IMAGE_ENCODER["patch_size"]) ** 2 + 1,
        )


def new_autoencoder(seed: int, scaling_factor: float = 1.0) -> AutoencoderKL:
    """The untrained autoencoder alone.

    Args:
        seed: Seed of the weights; the caller's random state is kept.
        scaling_factor: Factor applied to its latents before diffusion.
    """
    from diffusers import AutoencoderKL

    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return AutoencoderKL(**VAE, scaling_factor=scaling_factor)


def load_autoencoder(folder: Path) -> AutoencoderKL:
    """The trained autoencoder in float32 on the CPU.

    Raises:
        InputError: There is none in the folder.
    """
    from diffusers import AutoencoderKL

    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: no autoencoder; train it first with `python -m training.autoencoder`.")
    return AutoencoderKL.from_pretrained(folder)


class Denoiser(nn.Module):
    """Everything that learns to denoise: UNet, image encoder and camera projection, as the guidance uses them."""

    mean: Tensor
    std: Tensor

    def __init__(self, networks: Zero123Networks) -> None:
        super().__init__()
        self.unet = networks.unet
        self.image_encoder = networks.image_encoder
        self.projection = networks.projection
        for name, value in (("mean", networks.clip_mean), ("std", networks.clip_std)):
            self.register_buffer(name, torch.tensor(value)[:, None, None], persistent=False)

    def forward(
        self,
        noisy: Float[Tensor, "batch c h w"],
        timesteps: Int64[Tensor, " batch"],
        images: Float[Tensor, "batch 3 size size"],
        latents: Float[Tensor, "batch c h w"],
        poses: Float[Tensor, "batch 4"],
        keep: Float[Tensor, " batch"],
    ) -> Float[Tensor, "batch c h w"]:
        """Predicted noise.

        Args:
            noisy: Noisy latents of the target view.
            timesteps: Noise levels.
            images: Conditioning images in [0, 1] on white, of the image encoder's size.
            latents: Their latents, not scaled.
            poses: Camera vectors as of `cameras.relative_pose`.
            keep: 1 with the condition, 0 without.
        """
        encoder: Any = self.image_encoder
        sequence = encoder.vision_model((images - self.mean) / self.std).last_hidden_state
        tokens = encoder.visual_projection(encoder.vision_model.post_layernorm(sequence))
        cameras = poses[:, None].expand(-1, tokens.shape[1], -1)
        context = self.projection(torch.cat((tokens, cameras), dim=-1)) * keep[:, None, None]
        inputs = torch.cat((noisy, latents * keep[:, None, None, None]), dim=1)
        return self.unet(inputs, timesteps, encoder_hidden_states=context).sample
