"""Diffusion models with random weights, small, in the layouts in which the real ones are published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

WORDS = ("cat", "fox", "waves", "a")


def second_stage(folder: Path, tokenizer: bool = True) -> Path:
    """DeepFloyd-IF's second stage: 6 channels, levels of noise as classes, a T5 text encoder, no safety checker."""
    from diffusers import DDPMScheduler, IFSuperResolutionPipeline, UNet2DConditionModel
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=32,
        layers_per_block=1,
        block_out_channels=(32, 64),
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        in_channels=6,
        out_channels=6,
        cross_attention_dim=32,
        encoder_hid_dim=32,
        attention_head_dim=8,
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        cross_attention_norm="group_norm",
        resnet_time_scale_shift="scale_shift",
        act_fn="gelu",
        class_embed_type="timestep",
        mid_block_scale_factor=1.414,
        time_embedding_act_fn="gelu",
        time_embedding_dim=32,
    )
    noise: dict[str, Any] = {"num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2"}
    text_encoder = T5EncoderModel(T5Config(vocab_size=40, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2))
    IFSuperResolutionPipeline(
        tokenizer=t5_tokenizer() if tokenizer else None,  # pyright: ignore[reportArgumentType]
        text_encoder=text_encoder,
        unet=unet,
        scheduler=DDPMScheduler(**noise, variance_type="learned_range", thresholding=True),
        image_noising_scheduler=DDPMScheduler(**noise),
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    # As published: the watermarker and the safety checker are named, in a module of the pipeline.
    extra = {"watermarker": "IFWatermarker", "safety_checker": "IFSafetyChecker"}
    change_index(folder, **{name: ["deepfloyd_if", kind] for name, kind in extra.items()})
    return folder


def t5_tokenizer() -> Any:
    """A tokenizer of a few words."""
    from transformers import T5Tokenizer

    pieces = ["<pad>", "</s>", "<unk>", *(f"\u2581{word}" for word in WORDS)]
    return T5Tokenizer(vocab=[(piece, -1.0) for piece in pieces], extra_ids=0)


def stable_diffusion(folder: Path, upscaler: bool = False) -> Path:
    """Stable Diffusion, or its upscaler."""
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        DDPMScheduler,
        StableDiffusionPipeline,
        StableDiffusionUpscalePipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16,
        layers_per_block=1,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        in_channels=7 if upscaler else 4,
        num_class_embeds=1000 if upscaler else None,
        cross_attention_dim=32,
    )
    levels = 3 if upscaler else 2  # the decoder enlarges by 4 or 2
    blocks: dict[str, Any] = {
        "block_out_channels": (32,) * levels,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
    }
    vae = AutoencoderKL(**blocks, latent_channels=4)
    text = CLIPTextConfig(
        vocab_size=40, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    parts: dict[str, Any] = {
        "vae": vae,
        "text_encoder": CLIPTextModel(text),
        "tokenizer": clip_tokenizer(folder.with_name(f"{folder.name}_words")),
        "unet": unet,
        "scheduler": DDIMScheduler(clip_sample=False, steps_offset=1),
        "safety_checker": None,
        "feature_extractor": None,
    }
    if upscaler:
        StableDiffusionUpscalePipeline(**parts, low_res_scheduler=DDPMScheduler()).save_pretrained(folder)
    else:
        StableDiffusionPipeline(**parts, requires_safety_checker=False).save_pretrained(folder)
    return folder


def clip_tokenizer(folder: Path) -> Any:
    """A tokenizer of single letters, whose files go through `folder`."""
    from transformers import CLIPTokenizer

    folder.mkdir()
    words = ["<|startoftext|>", "<|endoftext|>", *"acefotx", *(f"{letter}</w>" for letter in "acefotx")]
    (folder / "vocab.json").write_text(json.dumps({word: place for place, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=77)


def change_index(folder: Path, **parts: Any) -> None:
    """Change entries of a model's index."""
    file = folder / "model_index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | parts))
