"""Priors in Stable Diffusion's layout with random weights, written as folders: full size to measure time and memory,
small for tests.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import nn

from consistent4d_ns.errors import InputError
from consistent4d_ns.guidance.diffusion import BETA_END, BETA_SCHEDULE, BETA_START, TIMESTEPS
from consistent4d_ns.guidance.stable_diffusion_layout import VELOCITY

TOKENS = 77
"""Tokens of a prompt that CLIP reads."""
SIZES: dict[str, dict[str, dict[str, Any]]] = {
    # Stable Diffusion 1.5: 512 pixels, CLIP ViT-L/14's text tower.
    "full": {
        "unet": {
            "sample_size": 64,
            "block_out_channels": (320, 640, 1280, 1280),
            "cross_attention_dim": 768,
            "attention_head_dim": 8,
        },
        "vae": {
            "sample_size": 512,
            "block_out_channels": (128, 256, 512, 512),
            "layers_per_block": 2,
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4,
        },
        "text_encoder": {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "vocab_size": 49408,
        },
    },
    # Sizes and the factor on latents differ from Stable Diffusion's, so that tests notice assumptions about them.
    "small": {
        "unet": {
            "sample_size": 8,
            "block_out_channels": (32, 64),
            "layers_per_block": 1,
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "cross_attention_dim": 24,
            "attention_head_dim": 8,
        },
        "vae": {
            "sample_size": 32,
            "block_out_channels": (32, 32, 64),
            "layers_per_block": 1,
            "down_block_types": ("DownEncoderBlock2D",) * 3,
            "up_block_types": ("UpDecoderBlock2D",) * 3,
            "scaling_factor": 0.6,
        },
        "text_encoder": {
            "hidden_size": 24,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "vocab_size": 520,
        },
    },
}
"""Arguments of the networks' constructors."""
PARTS = {
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "scheduler": ["diffusers", "DDIMScheduler"],
}
"""Library and class of each part, as `model_index.json` has them."""


def write_random_text_prior(
    folder: Path,
    size: Literal["full", "small"],
    seed: int,
    dtype: torch.dtype = torch.float16,
    velocity: bool = False,
    device: torch.device | str = "cpu",
) -> None:
    """Write an untrained prior, the same for the same seed and kind of device, as diffusers writes a trained one.

    Args:
        folder: A new or empty folder.
        size: "full" has Stable Diffusion 1.5's sizes, "small" reads prompts letter by letter and shows 32 pixels.
        seed: Seed of the weights; the caller's random state is left as it was.
        dtype: Number format of the weights.
        velocity: Whether the UNet is said to predict the velocity, with linear projections as in Stable Diffusion 2.1.
        device: Where the weights are drawn.

    Raises:
        InputError: `folder` is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: not an empty folder; choose another one.")
    for part, network in _networks(size, seed, velocity, torch.device(device)).items():
        (folder / part).mkdir(parents=True)
        _save(nn.Module.to(network, "cpu", dtype), folder / part)
    write_tokenizer(folder / "tokenizer")
    _write_scheduler(folder / "scheduler", velocity)
    _write_json(folder / "model_index.json", {"_class_name": "StableDiffusionPipeline", **PARTS})


def _networks(size: str, seed: int, velocity: bool, device: torch.device) -> dict[str, Any]:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    settings, words = SIZES[size], len(_words())
    last: dict[str, Any] = {"bos_token_id": words - 2, "eos_token_id": words - 1, "max_position_embeddings": TOKENS}
    with torch.random.fork_rng([device] if device.type == "cuda" else []), device:
        torch.manual_seed(seed)
        return {
            "unet": UNet2DConditionModel(**settings["unet"], use_linear_projection=velocity),
            "vae": AutoencoderKL(**settings["vae"]),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**settings["text_encoder"], **last)),
        }


def _save(network: Any, folder: Path) -> None:
    if folder.name != "text_encoder":
        network.save_pretrained(folder)
        return
    network.config.save_pretrained(folder)
    # The published names, which transformers has changed since.
    named = {f"text_model.{name.removeprefix('text_model.')}": value for name, value in network.state_dict().items()}
    save_file(named, folder / "model.safetensors", metadata={"format": "pt"})


def write_tokenizer(folder: Path) -> None:
    """A tokenizer in CLIP's layout that knows no words, so that every byte of a prompt is a token."""
    folder.mkdir(parents=True)
    words, end = _words(), "<|endoftext|>"
    _write_json(folder / "vocab.json", {word: index for index, word in enumerate(words)})
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    names = {"bos_token": "<|startoftext|>", "eos_token": end, "unk_token": end, "pad_token": end}
    _write_json(folder / "special_tokens_map.json", names)
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": TOKENS, "do_lower_case": True}
    _write_json(folder / "tokenizer_config.json", names | settings)


def _words() -> list[str]:
    """All bytes in GPT-2's spelling, which has a printable character for each, inside words and at their ends."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spelled = [chr(byte) for byte in printable] + [chr(256 + n) for n in range(256 - len(printable))]
    return [*spelled, *(f"{letter}</w>" for letter in spelled), "<|startoftext|>", "<|endoftext|>"]


def _write_scheduler(folder: Path, velocity: bool) -> None:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        num_train_timesteps=TIMESTEPS,
        beta_start=BETA_START,
        beta_end=BETA_END,
        beta_schedule=BETA_SCHEDULE,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=VELOCITY if velocity else "epsilon",
    )
    scheduler.save_pretrained(folder)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
