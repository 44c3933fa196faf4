"""Writes priors to disk in every layout they are found in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from consistent4d_ns.guidance import compvis_layout as original
from consistent4d_ns.guidance.networks import Zero123Networks

PROJECTIONS = {"clip_camera_projection": "proj", "cc_projection": "projection"}
"""Folder and layer name of the camera projection in the two diffusers layouts."""
SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "steps_offset": 1,
}
"""What a prior's scheduler folder holds."""


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """A JSON file, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def save_folder(networks: Zero123Networks, folder: Path, projection: str = "clip_camera_projection") -> Path:
    """A diffusers folder, with the spelling of the camera projection that goes with the folder name `projection`."""
    for part in ("unet", "vae", "image_encoder"):
        getattr(networks, part).save_pretrained(folder / part)
    layer = PROJECTIONS[projection]
    write_json(folder / projection / "config.json", {"image_tokens": networks.image_tokens})
    tensors = {f"{layer}.{name}": value.contiguous() for name, value in networks.projection.state_dict().items()}
    save_file(tensors, folder / projection / "diffusion_pytorch_model.safetensors")
    preprocessing = {"image_mean": list(networks.clip_mean), "image_std": list(networks.clip_std)}
    write_json(folder / "feature_extractor" / "preprocessor_config.json", preprocessing)
    write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER)
    write_json(folder / "model_index.json", {"_class_name": "Zero123Pipeline"})
    return folder


def original_tensors(networks: Zero123Networks) -> dict[str, Tensor]:
    """The state dict that the original authors would have saved; its raw UNet weights are off by one."""
    unet = _old_names(networks.unet, original.unet_renames(networks.unet.config))
    vae = _old_names(networks.vae, original.vae_renames(networks.vae.config))
    vae = {k: v[..., None, None] if ".attn_1." in k and v.ndim == 2 else v for k, v in vae.items()}
    return {
        **{f"model.diffusion_model.{name}": value + 1 for name, value in unet.items()},
        **{"model_ema.diffusion_model" + name.replace(".", ""): value for name, value in unet.items()},
        "model_ema.decay": torch.tensor(0.9999),
        **{f"first_stage_model.{name}": value for name, value in vae.items()},
        **{f"cond_stage_model.model.visual.{k}": v for k, v in _openai_tensors(networks.image_encoder).items()},
        **{f"cc_projection.{name}": value for name, value in networks.projection.state_dict().items()},
        "betas": torch.zeros(1000),
    }


def _old_names(network: nn.Module, renames: original.Renames) -> dict[str, Tensor]:
    return original.rename(network.state_dict(), ((ours, theirs) for theirs, ours in renames))


def _openai_tensors(encoder: nn.Module) -> dict[str, Tensor]:
    state = encoder.state_dict()
    tensors = {"proj": state.pop("visual_projection.weight").T}
    tensors |= {old: state.pop(new) for old, new in original.LONE_CLIP_NAMES.items()}
    layers = 1 + max(int(name.split(".")[3]) for name in state if ".layers." in name)
    for layer in (f"vision_model.encoder.layers.{i}.self_attn" for i in range(layers)):
        for kind in ("weight", "bias"):
            parts = [state.pop(f"{layer}.{n}_proj.{kind}") for n in "qkv"]
            state[f"{layer}.in_proj_{kind}"] = torch.cat(parts)
    renames = ((ours, theirs) for theirs, ours in original.clip_renames(layers))
    return tensors | original.rename(state, renames)
