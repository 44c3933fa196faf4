"""Triton kernels that do in one pass what the pure functions beside their callers do in many.

Each module here imports Triton and is itself imported where it is first needed: nothing else needs Triton.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


def usable(tensor: Tensor) -> bool:
    """Whether the kernels take this tensor: float32 on a CUDA device, and torch brought Triton (it does on Linux)."""
    return tensor.is_cuda and tensor.dtype == torch.float32 and _has_triton()
