"""Turns a prior in any layout into a folder in the diffusers layout: safetensors and JSON, no pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import nn

from consistent4d_ns.errors import InputError
from consistent4d_ns.files.tensors import not_finite
from consistent4d_ns.guidance.camera_convention import CameraConvention, resolve_convention
from consistent4d_ns.guidance.compvis_layout import load_checkpoint
from consistent4d_ns.guidance.diffusers_layout import load_folder
from consistent4d_ns.guidance.hub_cache import check_not_cache
from consistent4d_ns.guidance.networks import Zero123Networks
from consistent4d_ns.guidance.saving import check_schedule, save_folder

UnetPrecision = Literal["fp16", "fp32"]
"""Number format of the UNet in the written folder."""
DTYPES: dict[UnetPrecision, torch.dtype] = {"fp16": torch.float16, "fp32": torch.float32}


def read_prior(source: Path, unet: UnetPrecision, convention: CameraConvention | Literal["auto"]) -> Zero123Networks:
    """The prior in `source` as `write_prior` writes it: with its camera convention, and the UNet in `unet`.

    A training rounds the UNet to half precision on CUDA anyway, and the image encoder, the camera projection and, for
    conditions, the VAE compute in float32: these are left as they are. So the UNet in "fp16" gives the same scores on
    CUDA, and in "fp32" everywhere.

    Args:
        source: A checkpoint in the original layout, of which the EMA weights are read, or a folder.
        unet: Number format of the UNet; one that has fewer digits than "fp32" asks for is left as it is.
        convention: Camera convention; "auto": what the files or the name of `source` say.

    Raises:
        InputError: `source` is no Zero123 prior, or its UNet does not fit in "fp16".
    """
    if source.is_dir():
        check_not_cache(source)
        networks = load_folder(source)
    else:
        networks = load_checkpoint(source)
    networks.camera_convention, _ = resolve_convention(convention, str(source), networks.camera_convention)
    if unet == "fp16":
        nn.Module.to(networks.unet, DTYPES[unet])  # Not `unet.to`: diffusers' override warns about it.
        if (name := not_finite(networks.unet.state_dict())) is not None:
            raise InputError(f"{source}: {name} of the UNet has values too large for fp16: give --precision fp32.")
    check_schedule(networks, str(source))
    return networks


def write_prior(networks: Zero123Networks, folder: Path) -> None:
    """Write a prior to the empty folder `folder`, each network in the number format that it has.

    Raises:
        OSError: It cannot be written.
    """
    save_folder(networks, folder, dtype=None)


def unet_format(networks: Zero123Networks) -> str:
    """Number format of the UNet, such as "fp16"."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    dtype = networks.unet.dtype
    return names.get(dtype, str(dtype).removeprefix("torch."))


def size_of(networks: Zero123Networks) -> int:
    """Bytes of all weights."""
    parts = (networks.unet, networks.vae, networks.image_encoder, networks.projection)
    return sum(tensor.numel() * tensor.element_size() for part in parts for tensor in part.parameters())
