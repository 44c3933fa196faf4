"""Looks at the values of named tensors, most of which come from files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

DIGEST = "sha256"
"""Entry of a safetensors header that holds the digest of the tensors."""


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Name of the first tensor that holds a NaN or an infinite value; None if there is none.

    The extremes tell it, at about the speed of memory; a mask of all values would take thirty times as long.
    """
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or tensor.numel() == 0:
            continue
        extremes = torch.stack(torch.aminmax(tensor if tensor.element_size() > 1 else tensor.half()))
        if not extremes.isfinite().all():
            return name
    return None


def digest_of(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and values, in order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
