"""Where the weights of the networks behind the metrics are kept. Nothing slow is imported."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from consistent4d_ns.interpolation.cache import user_cache

Network = Literal["clip", "lpips", "i3d"]
"""The networks."""
FILES: dict[Network, str] = {
    "clip": "clip-vit-base-patch32-images.safetensors",
    "lpips": "vgg16-imagenet-convolutions.safetensors",
    "i3d": "i3d-kinetics-400.safetensors",
}
"""Name of each weight file in the user's cache."""


def weight_file(name: Network) -> Path:
    """File in which `consistent4d weights metrics` stores the weights of a network; it need not exist.

    Raises:
        InputError: as `user_cache`.
    """
    return user_cache() / FILES[name]
