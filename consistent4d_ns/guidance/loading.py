"""Builds the guidance that a configuration describes."""

from __future__ import annotations

from pathlib import Path

import torch
from nerfstudio.utils.comms import is_main_process

from consistent4d_ns.data.cameras import OrbitViews
from consistent4d_ns.errors import InputError
from consistent4d_ns.files.names import expanded
from consistent4d_ns.guidance import bundled_prior
from consistent4d_ns.guidance.compvis_layout import load_checkpoint
from consistent4d_ns.guidance.config import GuidanceConfig, TextGuidanceConfig
from consistent4d_ns.guidance.diffusers_layout import load_folder
from consistent4d_ns.guidance.hub import TEXT_OFFLINE, check_not_address, fetch, is_hub_id, missing_prior
from consistent4d_ns.guidance.hub_cache import check_not_cache
from consistent4d_ns.guidance.networks import Zero123Networks
from consistent4d_ns.guidance.prior_files import STABLE_DIFFUSION
from consistent4d_ns.guidance.stable_diffusion import StableDiffusionGuidance
from consistent4d_ns.guidance.stable_diffusion_layout import TextToImageNetworks, load_text_folder
from consistent4d_ns.guidance.zero123 import Zero123Guidance
from consistent4d_ns.messages import say


def load_networks(prior: str) -> Zero123Networks:
    """Load the prior given as `bundled`, folder, checkpoint file or hub id (tried in this order), on the CPU.

    Raises:
        InputError: It cannot be found or used.
    """
    if prior == bundled_prior.NAME:
        return load_folder(bundled_prior.folder())
    path = expanded(Path(prior))
    if path.is_dir():
        check_not_cache(path)
        return load_folder(path)
    if path.is_file():
        return load_checkpoint(path)
    check_not_address(prior)
    if not is_hub_id(prior):
        raise missing_prior(prior, "no such file or folder")
    return load_folder(fetch(prior))


def build_guidance(
    config: GuidanceConfig, condition_elevation: float, device: torch.device | str
) -> Zero123Guidance | None:
    """The guidance that `config` describes, or None for `kind` "none"; call `prepare` before using it.

    Args:
        config: Which prior, and how its networks run.
        condition_elevation: Elevation of the input camera in degrees.
        device: Device of the networks.

    Raises:
        InputError: The prior's weights are missing or cannot be used.
    """
    if config.kind == "none":
        return None
    if is_main_process():
        say(f"Loading the {_described(config.prior)} ...")
    guidance = Zero123Guidance(load_networks(config.prior), config, device, condition_elevation)
    if is_main_process():
        convention, reason = guidance.camera_convention, guidance.convention_reason
        say(f"Camera convention of the {_described(config.prior)}: {convention} ({reason}).")
    return guidance


def load_text_networks(prior: str) -> TextToImageNetworks:
    """Load the text-to-image prior given as folder or hub id, on the CPU.

    Raises:
        InputError: It cannot be found or used.
    """
    path = expanded(Path(prior))
    if path.is_dir():
        check_not_cache(path)
        return load_text_folder(path)
    if path.is_file():
        raise InputError(
            f"--pipeline.guidance.prior {prior}: a file, where a folder in Stable Diffusion's layout is needed; "
            "save the "
            "checkpoint with diffusers' save_pretrained."
        )
    if prior == bundled_prior.NAME:
        raise InputError(f"--pipeline.guidance.prior {prior}: {TEXT_OFFLINE}")
    check_not_address(prior)
    if not is_hub_id(prior):
        raise missing_prior(prior, "no such folder", STABLE_DIFFUSION)
    return load_text_folder(fetch(prior, STABLE_DIFFUSION))


def build_text_guidance(
    config: TextGuidanceConfig, prompt: str, front: OrbitViews, device: torch.device | str
) -> StableDiffusionGuidance | None:
    """The guidance that `config` describes, or None for `kind` "none".

    Args:
        config: Which prior, its prompts of views, and how its networks run.
        prompt: What the object is.
        front: The view that all others are relative to.
        device: Device of the networks.

    Raises:
        InputError: The prior's weights are missing or cannot be used.
    """
    if config.kind == "none":
        return None
    if is_main_process():
        say(f"Loading the {_described(config.prior)} ...")
    return StableDiffusionGuidance(load_text_networks(config.prior), config, prompt, front, device)


def _described(prior: str) -> str:
    """The prior in words, for messages."""
    return "bundled prior" if prior == bundled_prior.NAME else f"prior {prior}"
