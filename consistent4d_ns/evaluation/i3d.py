"""I3D (Carreira and Zisserman 2017), whose 400 logits FVD compares: a function of its parameters.

Parameters have the names of the file `i3d_pretrained_400.pt` that the original's FVD script reads, in piergiaj's
layout: `Conv3d_1a_7x7.conv3d.weight`, `Mixed_3b.b1a.bn.running_mean`, `logits.conv3d.bias`, ... Widths follow from
their shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

EPSILON = 1e-3
"""Added to variances by the batch norms."""
IMAGE_SIZE = 224
"""Side in pixels of the images of a clip."""
SHORTEST = 9
"""Images that a clip needs, so that two time steps are left before the final average."""
STEM = ("Conv3d_1a_7x7", "Conv3d_2b_1x1", "Conv3d_2c_3x3")
"""Single convolutions."""
BLOCKS = ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c")
"""Inception blocks."""
BRANCHES = ("b0", "b1a", "b1b", "b2a", "b2b", "b3b")
"""Convolutions of an inception block."""
HEAD = "logits"
"""The last convolution, without batch norm."""


def parameter_names() -> set[str]:
    """Names of all parameters."""
    units = [*STEM, *(f"Mixed_{block}.{branch}" for block in BLOCKS for branch in BRANCHES)]
    norms = [f"{unit}.bn.{part}" for unit in units for part in ("weight", "bias", "running_mean", "running_var")]
    return {*norms, *(f"{unit}.conv3d.weight" for unit in units), f"{HEAD}.conv3d.weight", f"{HEAD}.conv3d.bias"}


@dataclass(frozen=True)
class I3D:
    """The network in evaluation mode."""

    parameters: Mapping[str, Tensor]
    """By name (see `parameter_names`); all on one device."""

    @torch.no_grad()
    def __call__(self, clips: Float[Tensor, "clips 3 frames 224 224"]) -> Float[Tensor, "clips steps classes"]:
        """Logits of clips in [-1, 1] of at least `SHORTEST` images, at each of the time steps that are left."""
        hidden = self._unit("Conv3d_1a_7x7", clips, stride=2)
        hidden = max_pool(hidden, (1, 3, 3), (1, 2, 2))
        hidden = self._unit("Conv3d_2c_3x3", self._unit("Conv3d_2b_1x1", hidden))
        hidden = max_pool(hidden, (1, 3, 3), (1, 2, 2))
        hidden = self._block("3c", self._block("3b", hidden))
        hidden = max_pool(hidden, (3, 3, 3), (2, 2, 2))
        for block in ("4b", "4c", "4d", "4e", "4f"):
            hidden = self._block(block, hidden)
        hidden = max_pool(hidden, (2, 2, 2), (2, 2, 2))
        hidden = self._block("5c", self._block("5b", hidden))
        pooled = F.avg_pool3d(hidden, (2, 7, 7), stride=1)
        logits = F.conv3d(pooled, self.parameters[f"{HEAD}.conv3d.weight"], self.parameters[f"{HEAD}.conv3d.bias"])
        return logits.mean(dim=(3, 4)).movedim(1, 2)

    def _unit(self, name: str, images: Tensor, stride: int = 1) -> Tensor:
        """A convolution, a batch norm and a rectifier."""
        weight = self.parameters[f"{name}.conv3d.weight"]
        size = tuple(weight.shape[2:])
        padded = pad_same(images, size, (stride,) * 3) if max(size) > 1 else images
        hidden = F.conv3d(padded, weight, stride=stride)
        mean, variance, scale, shift = (
            self.parameters[f"{name}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.relu_(F.batch_norm(hidden, mean, variance, scale, shift, eps=EPSILON))

    def _block(self, name: str, images: Tensor) -> Tensor:
        """An inception block: four branches beside each other."""
        unit = f"Mixed_{name}."
        direct = self._unit(unit + "b0", images)
        middle = self._unit(unit + "b1b", self._unit(unit + "b1a", images))
        narrow = self._unit(unit + "b2b", self._unit(unit + "b2a", images))
        pooled = self._unit(unit + "b3b", max_pool(images, (3, 3, 3), (1, 1, 1)))
        return torch.cat((direct, middle, narrow, pooled), dim=1)


def published_average(logits: Float[Tensor, "clips steps classes"]) -> Float[Tensor, "clips classes"]:
    """One vector of logits per clip as the network's authors average them: over all time steps."""
    return logits.mean(dim=1)


def original_average(logits: Float[Tensor, "clips steps classes"]) -> Float[Tensor, "clips classes"]:
    """The same as in the original's script, whose last pooling has a stride of 2: over every other time step."""
    return logits[:, ::2].mean(dim=1)


def max_pool(images: Tensor, size: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    """Max pooling of values that are not negative, with TensorFlow's padding."""
    return F.max_pool3d(pad_same(images, size, stride), size, stride)


def pad_same(images: Tensor, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Zeros around clips as TensorFlow's SAME padding adds them: half at each end, the odd one last."""
    padding: list[int] = []
    for length, window, step in zip(images.shape[:1:-1], size[::-1], stride[::-1], strict=True):
        total = max(window - (length % step or step), 0)
        padding += [total // 2, total - total // 2]
    return F.pad(images, padding)
