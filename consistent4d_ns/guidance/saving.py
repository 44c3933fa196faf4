"""Writes a prior as a folder that `diffusers_layout` reads."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from consistent4d_ns.errors import InputError
from consistent4d_ns.guidance.checksums import write_checksums
from consistent4d_ns.guidance.diffusion import BETA_END, BETA_SCHEDULE, BETA_START, TIMESTEPS, alphas_cumprod
from consistent4d_ns.guidance.networks import CAMERA_NUMBERS, Zero123Networks

PARTS = {
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    "clip_camera_projection": ["zero123", "CLIPCameraProjection"],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
}
"""Library and class of each part, as `model_index.json` has them."""


def save_folder(
    networks: Zero123Networks, folder: Path, dtype: torch.dtype | None = torch.float16, overwrite: bool = False
) -> None:
    """Write `networks` to `folder` in the diffusers layout, as safetensors and JSON only, with checksums.

    Args:
        networks: The prior; not modified. Its noise schedule must be Zero123's.
        folder: Destination; created if necessary.
        dtype: Number format of the network weights in the files; None: that which each network has.
        overwrite: Replace the parts of a prior that `folder` already holds; other files are kept.

    Raises:
        InputError: `folder` is not empty and `overwrite` is off, or the noise schedule is not Zero123's.
        OSError: `folder` cannot be written.
    """
    check_schedule(networks, str(folder))
    _clear(folder, overwrite)
    with _system_errors(folder):
        for part in ("unet", "vae", "image_encoder"):
            # Not `network.to`: diffusers' override warns about every change of precision.
            copy: Any = nn.Module.to(deepcopy(getattr(networks, part)), "cpu", dtype)
            copy.save_pretrained(folder / part)
        _save_projection(networks, folder / "clip_camera_projection", dtype)
    _save_scheduler(folder / "scheduler")
    _write_json(folder / "feature_extractor" / "preprocessor_config.json", _preprocessing(networks))
    _write_json(folder / "model_index.json", {"_class_name": "Zero123Pipeline", **PARTS})
    write_checksums(folder)


def check_schedule(networks: Zero123Networks, named: str) -> None:
    """Raises: InputError: the prior's noise schedule is not Zero123's; the message begins with `named`."""
    if not torch.equal(networks.alphas.cpu(), alphas_cumprod()):
        raise InputError(f"{named}: the prior's noise schedule is not Zero123's, and no other can be saved.")


@contextlib.contextmanager
def _system_errors(folder: Path) -> Iterator[None]:
    """Raise what the system answers to the writer of safetensors as `OSError`s."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(folder)) from error


def _clear(folder: Path, overwrite: bool) -> None:
    """Create `folder`, and remove the parts of a prior from it."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not overwrite):
        raise InputError(f"{folder}: not an empty folder; choose another one, or ask for it to be overwritten.")
    for part in PARTS:
        shutil.rmtree(folder / part, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)


def _save_projection(networks: Zero123Networks, folder: Path, dtype: torch.dtype | None) -> None:
    from safetensors.torch import save_file

    config: dict[str, Any] = {
        "_class_name": "CLIPCameraProjection",
        "embedding_dim": networks.projection.in_features - CAMERA_NUMBERS,
        "additional_embeddings": CAMERA_NUMBERS,
        "image_tokens": networks.image_tokens,
    }
    if networks.camera_convention is not None:
        config["camera_convention"] = networks.camera_convention
    _write_json(folder / "config.json", config)
    weights = nn.Module.to(deepcopy(networks.projection), "cpu", dtype).state_dict(prefix="proj.")
    save_file(weights, folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})


def _save_scheduler(folder: Path) -> None:
    """The noise schedule, and the sampler of `diffusion.ddim_schedule`."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        num_train_timesteps=TIMESTEPS,
        beta_start=BETA_START,
        beta_end=BETA_END,
        beta_schedule=BETA_SCHEDULE,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    scheduler.save_pretrained(folder)


def _preprocessing(networks: Zero123Networks) -> dict[str, Any]:
    """The image encoder's input (`conditioning.clip_input`), in transformers' terms."""
    side = networks.clip_size
    return {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": side},
        "crop_size": {"height": side, "width": side},
        "image_mean": list(networks.clip_mean),
        "image_std": list(networks.clip_std),
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
