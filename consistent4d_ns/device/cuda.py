"""How a process uses its CUDA device."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def use_device(device: str) -> None:
    """Make `device` the current one, and let its memory grow where it is; nothing to do for other kinds of devices.

    The number of samples changes from step to step. Without expandable segments torch goes on reserving memory for
    sizes that it has not seen before. Takes effect before the first use of CUDA; PYTORCH_CUDA_ALLOC_CONF overrules it.
    """
    if device.startswith("cuda"):
        os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
        torch.cuda.set_device(torch.device(device).index or 0)


@contextmanager
def trying_no_algorithms() -> Iterator[None]:
    """Let cuDNN choose by rules inside, where Nerfstudio lets it try all algorithms.

    Trying takes seconds and as much memory as the most wasteful algorithm asks for, tens of GiB in float32. That does
    not pay for what is computed once.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
