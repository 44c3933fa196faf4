"""Writes priors to disk in every layout they are found in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from consistent4d_ns.guidance import compvis_layout as original
from consistent4d_ns.guidance.checksums import LIST
from consistent4d_ns.guidance.networks import Zero123Networks
from consistent4d_ns.guidance.saving import save_folder

OURS = "clip_camera_projection"
PROJECTIONS = {OURS: "proj", "cc_projection": "projection"}
"""Folder and layer name of the camera projection in the two diffusers layouts; the first is the one we write."""


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """A JSON file with this content."""
    path.write_text(json.dumps(content))


def change_json(path: Path, **settings: Any) -> None:
    """Change settings in a JSON file."""
    write_json(path, json.loads(path.read_text()) | settings)


def hub_folder(networks: Zero123Networks, folder: Path, projection: str = OURS) -> Path:
    """A diffusers folder as on the hub: without checksums, with the camera projection in this spelling."""
    save_folder(networks, folder, networks.unet.dtype)
    (folder / LIST).unlink()
    if projection != OURS:
        (folder / OURS).rename(folder / projection)
        weights = folder / projection / "diffusion_pytorch_model.safetensors"
        ours, theirs = PROJECTIONS[OURS], PROJECTIONS[projection]
        save_file({k.replace(ours, theirs, 1): v for k, v in load_file(weights).items()}, weights)
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
    tensors |= {old: state.pop(new) for old, new in original.CLIP_EMBEDDINGS.items()}
    layers = 1 + max(int(name.split(".")[3]) for name in state if ".layers." in name)
    for layer in (f"vision_model.encoder.layers.{i}.self_attn" for i in range(layers)):
        for kind in ("weight", "bias"):
            parts = [state.pop(f"{layer}.{n}_proj.{kind}") for n in "qkv"]
            state[f"{layer}.in_proj_{kind}"] = torch.cat(parts)
    renames = ((ours, theirs) for theirs, ours in original.clip_renames(layers))
    return tensors | original.rename(state, renames)
