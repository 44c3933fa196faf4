"""Pseudo-truth: what a diffusion model makes of rendered frames (method.md section 9)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from consistent4d_ns.enhancing.model_folder import (
    REMEDY,
    SECOND_STAGES,
    UPSCALER,
    ModelFolder,
    described_as,
    find_model,
    load_networks,
)
from consistent4d_ns.enhancing.options import DEFAULT_STRENGTH, PseudoTruthOptions
from consistent4d_ns.enhancing.training import Clips, Progress
from consistent4d_ns.errors import InputError

BATCH = 4
"""Frames that the diffusion model sees at a time."""
FACTOR = 4
"""Factor of super-resolution."""
TEXT_PARTS = ("text_encoder", "tokenizer")

Pictures = Sequence[Image.Image]
Improve = Callable[[Pictures, torch.Generator], Float[np.ndarray, "images height width 3"]]
"""Makes better images, in [0, 1], of images of one size."""


def pseudo_truth(
    rendered: Clips,
    options: PseudoTruthOptions,
    seed: int,
    device: torch.device | str,
    progress: Progress = lambda steps, _: steps,
) -> Clips:
    """Rendered frames, improved one by one by a diffusion model; of the same size.

    Args:
        rendered: Clips of frames on white.
        options: Which model, and how it is used.
        seed: Seed of its noise, which is the same on every device.
        device: Where to compute; half precision on CUDA.
        progress: Shows how many batches of frames are done.

    Raises:
        InputError: The model is not on this machine, damaged, or not of a kind that improves images; or it makes
            numbers that are not finite.
    """
    folder = find_model(options)
    improve = load_improvement(folder, options, rendered.shape[-1], device)
    frames = rendered.flatten(0, 1).movedim(1, -1).numpy()
    pictures = [Image.fromarray(frame) for frame in frames]
    draws, better = torch.Generator().manual_seed(seed), []
    for batch in progress(range(-(-len(pictures) // BATCH)), -(-len(pictures) // BATCH)):
        with described_as(folder.path):
            images = torch.from_numpy(improve(pictures[batch * BATCH : (batch + 1) * BATCH], draws)).movedim(-1, 1)
        if not images.isfinite().all():
            raise InputError(f"--model {options.model} makes numbers that are not finite: download it again.")
        better.append(resized_bytes(images.float(), rendered.shape[-1]))
    return torch.cat(better).view_as(rendered)


def resized_bytes(images: Float[Tensor, "images 3 h w"], size: int) -> Tensor:
    """Images in [0, 1] as 8-bit values of a size."""
    if images.shape[-2:] != (size, size):
        images = F.interpolate(images, (size, size), mode="bicubic", antialias=True)
    return images.clamp(0.0, 1.0).mul(255.0).round().byte()


def load_improvement(
    folder: ModelFolder, options: PseudoTruthOptions, size: int, device: torch.device | str
) -> Improve:
    """A model, ready to improve images of `size` pixels.

    Raises:
        InputError: see `pseudo_truth`.
    """
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for logging in (diffusers_logging, transformers_logging):  # What they would say is checked here.
        logging.set_verbosity_error()
        logging.disable_progress_bar()
    if folder.kind in SECOND_STAGES:
        return _second_stage(folder, options, device)
    return _upscaler(folder, options, size, device) if folder.kind == UPSCALER else _repainter(folder, options, device)


def _second_stage(folder: ModelFolder, options: PseudoTruthOptions, device: torch.device | str) -> Improve:
    """DeepFloyd-IF's second stage. Its text encoder, by far its largest part, is not kept."""
    from diffusers import IFImg2ImgSuperResolutionPipeline as Pipeline

    reader = _pipeline(Pipeline, folder, device, without=("unet",))
    with torch.no_grad(), described_as(folder.path):
        prompts = reader.encode_prompt(options.prompt, device=torch.device(device))
    del reader
    pipeline = _pipeline(Pipeline, folder, device, without=TEXT_PARTS)
    small = pipeline.unet.config.sample_size // FACTOR

    def improve(images: Pictures, draws: torch.Generator) -> Float[np.ndarray, "images height width 3"]:
        positive, negative = (prompt.expand(len(images), -1, -1) for prompt in prompts)
        return pipeline(
            image=_resized(images, small),
            original_image=list(images),
            prompt_embeds=positive,
            negative_prompt_embeds=negative,
            generator=draws,
            output_type="np",
            **_strength(options),
        ).images

    return improve


def _upscaler(folder: ModelFolder, options: PseudoTruthOptions, size: int, device: torch.device | str) -> Improve:
    """A model that enlarges images by the factor of super-resolution."""
    from diffusers import StableDiffusionUpscalePipeline

    pipeline = _pipeline(StableDiffusionUpscalePipeline, folder, device)

    def improve(images: Pictures, draws: torch.Generator) -> Float[np.ndarray, "images height width 3"]:
        return pipeline(
            prompt=[options.prompt] * len(images),
            image=_resized(images, size // FACTOR),
            num_inference_steps=options.diffusion_steps,
            generator=draws,
            output_type="np",
        ).images

    return improve


def _repainter(folder: ModelFolder, options: PseudoTruthOptions, device: torch.device | str) -> Improve:
    """A model that repaints an image at its own resolution, with a strength."""
    from diffusers import AutoPipelineForImage2Image

    pipeline = _pipeline(AutoPipelineForImage2Image, folder, device)
    if not {"prompt", "image", "strength"} <= inspect.signature(pipeline.__call__).parameters.keys():
        raise InputError(f"{folder.path} is a {folder.kind}, which takes no prompt, image and strength: {REMEDY}.")
    network = getattr(pipeline, "unet", None) or pipeline.transformer
    latents = getattr(network.config, "sample_size", None)
    side = latents * pipeline.vae_scale_factor if isinstance(latents, int) else None

    def improve(images: Pictures, draws: torch.Generator) -> Float[np.ndarray, "images height width 3"]:
        return pipeline(
            prompt=[options.prompt] * len(images),
            image=list(images) if side is None else _resized(images, side),
            generator=draws,
            output_type="np",
            **_strength(options),
        ).images

    return improve


def _pipeline(kind: Any, folder: ModelFolder, device: torch.device | str, without: Sequence[str] = ()) -> Any:
    """A pipeline of diffusers with the networks of a folder, without some of its parts."""
    dtype = torch.float16 if torch.device(device).type == "cuda" else torch.float32
    networks = load_networks(folder, dtype, without)
    with described_as(folder.path):
        pipeline = kind.from_pretrained(folder.path, torch_dtype=dtype, use_safetensors=True, **networks)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline.to(device)


def _resized(images: Pictures, side: int) -> list[Image.Image]:
    return [image.resize((side, side), Image.Resampling.BICUBIC) for image in images]


def _strength(options: PseudoTruthOptions) -> dict[str, Any]:
    """Strength and steps as diffusers names them."""
    strength = DEFAULT_STRENGTH if options.strength is None else options.strength
    return {"strength": strength, "num_inference_steps": options.diffusion_steps}
