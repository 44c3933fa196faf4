"""Where the Triton kernels beside the pure functions are used; each of their modules is imported where first needed."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor


@cache
def has_triton() -> bool:
    """Whether Triton is installed; torch brings it on Linux."""
    return find_spec("triton") is not None


def usable(tensor: Tensor) -> bool:
    """Whether the kernels take this tensor: float32 on a CUDA device, and there is Triton."""
    return tensor.is_cuda and tensor.dtype == torch.float32 and has_triton()
