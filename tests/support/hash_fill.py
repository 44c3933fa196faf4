"""Deterministic numbers from which inputs and parameters of several golden files are regenerated (golden/HASH.md)."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

MASK = np.uint64(0xFFFFFFFF)


def hash_u(count: int, salt: int) -> NDArray[np.float64]:
    """`count` float64 values in [-1, 1) that depend on nothing but their index and `salt`."""
    offset = np.uint64((salt * 40503 + 12345) % 2**32)
    x = (np.arange(count, dtype=np.uint64) * np.uint64(2654435761) + offset) & MASK
    x = ((x ^ (x >> np.uint64(15))) * np.uint64(2246822519)) & MASK
    x = ((x ^ (x >> np.uint64(13))) * np.uint64(3266489917)) & MASK
    x ^= x >> np.uint64(16)
    return x / 2**32 * 2 - 1


def images(batch: int, height: int, width: int, salt: int) -> Float[Tensor, "batch 3 height width"]:
    """Smooth moving patterns with a little noise: float32 in [0, 1], multiples of 1/255."""
    b, channel, y, x = np.ogrid[:batch, :3, :height, :width]
    shift = 3 * b
    pattern = np.sin((x + shift) / 7 + channel) * np.cos((y - 0.5 * shift) / 9 + 2 * channel)
    noise = np.stack([hash_u(3 * height * width, salt + i).reshape(3, height, width) for i in range(batch)])
    levels = np.round(255 * np.clip(0.5 + 0.4 * pattern + 0.08 * noise, 0, 1))
    return torch.from_numpy((levels / 255).astype(np.float32))
