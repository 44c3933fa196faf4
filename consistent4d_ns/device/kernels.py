"""Triton kernels: where they can be used in place of the plain functions beside them, and how they are launched.

The modules that define kernels import Triton; they are imported only where a kernel is about to run.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor


@cache
def has_triton() -> bool:
    """Whether Triton is installed; PyTorch comes with it on Linux."""
    return find_spec("triton") is not None


def usable(tensor: Tensor) -> bool:
    """Whether the kernels accept this tensor: float32 on a CUDA device, with Triton installed."""
    return tensor.is_cuda and tensor.dtype == torch.float32 and has_triton()


def ceil_div(count: int, block: int) -> int:
    """Number of blocks of size `block` that cover `count` elements."""
    return -(-count // block)


def launch(kernel: Any, grid: tuple[int, ...], first: Tensor, *arguments: Any, **options: Any) -> None:
    """Run a Triton kernel on the device that its tensors are on.

    Triton itself launches on the current device, which may be another one in a process that uses several.

    Args:
        kernel: A function under `triton.jit`.
        grid: Number of programs along each axis; nothing is done where one of them is 0.
        first: The kernel's first argument.
        arguments: Its other arguments; tensors are on the device of `first`.
        options: Arguments by name and launch options, such as `num_warps`.
    """
    if all(grid):
        with torch.cuda.device_of(first):
            kernel[grid](first, *arguments, **options)
