"""Random networks for the metrics in the exact layouts of the published ones, but narrow."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from consistent4d_ns.evaluation.i3d import BLOCKS, BRANCHES, STEM, parameter_names
from consistent4d_ns.evaluation.weights import FILES

CLASSES = 12
KERNELS = {"Conv3d_1a_7x7": 7, "Conv3d_2c_3x3": 3}
"""Sides of the kernels of single convolutions, where they are not 1."""
WIDTH = 2
"""Channels of every convolution."""
VGG16 = {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256), 14: (256, 256)}
VGG16 |= {17: (256, 512), **dict.fromkeys((19, 21, 24, 26, 28), (512, 512))}
"""Inputs and outputs of VGG16's convolutions by their numbers in torchvision."""


def small_i3d() -> dict[str, Tensor]:
    """I3D with `WIDTH` channels in every convolution."""
    torch.manual_seed(0)
    shapes: dict[str, tuple[int, int]] = {}
    inputs = 3
    for unit in STEM:
        shapes[unit] = (inputs, KERNELS.get(unit, 1))
        inputs = WIDTH
    for block in BLOCKS:
        for branch in BRANCHES:
            first = branch in ("b0", "b1a", "b2a", "b3b")
            shapes[f"Mixed_{block}.{branch}"] = (inputs if first else WIDTH, 1 if first else 3)
        inputs = 4 * WIDTH
    tensors = {
        "logits.conv3d.weight": torch.randn(CLASSES, inputs, 1, 1, 1),
        "logits.conv3d.bias": torch.randn(CLASSES),
    }
    for unit, (channels, side) in shapes.items():
        tensors[f"{unit}.conv3d.weight"] = torch.randn(WIDTH, channels, side, side, side) / (channels * side**3) ** 0.5
        for part in ("weight", "bias", "running_mean", "running_var"):
            tensors[f"{unit}.bn.{part}"] = torch.rand(WIDTH) + 0.5
    assert tensors.keys() == parameter_names()
    return tensors


def small_clip() -> dict[str, Tensor]:
    """CLIP's image encoder as transformers stores it: patches of 32 pixels of images of 224, but two narrow layers."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    config = CLIPVisionConfig(hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=1)
    config.projection_dim = 16
    tensors = CLIPVisionModelWithProjection(config).state_dict()
    return {name: value for name, value in tensors.items() if not name.endswith("position_ids")}


def random_vgg16() -> dict[str, Tensor]:
    """The convolutions of VGG16, of full size: the weights of LPIPS, which are real, need them so."""
    torch.manual_seed(0)
    tensors: dict[str, Tensor] = {}
    for layer, (inputs, outputs) in VGG16.items():
        tensors[f"features.{layer}.weight"] = torch.randn(outputs, inputs, 3, 3) * (2.0 / (9 * inputs)) ** 0.5
        tensors[f"features.{layer}.bias"] = torch.zeros(outputs)
    return tensors


def store_small_networks(cache: Path) -> None:
    """Write CLIP and I3D to a user's cache (the value of XDG_CACHE_HOME)."""
    folder = cache / "consistent4d"
    folder.mkdir(parents=True)
    save_file(small_clip(), folder / FILES["clip"])
    save_file(small_i3d(), folder / FILES["i3d"])
