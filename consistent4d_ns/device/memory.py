"""How much memory a process has used, and whether it was too little."""

from __future__ import annotations

import sys

import torch

try:
    import resource
except ImportError:  # Windows
    resource = None

RSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in which the system counts the resident set size."""
OUT_OF_MEMORY = ("DefaultCPUAllocator: can't allocate memory", "not enough memory", "CUDA error: out of memory")
"""What errors say that are not of the kind of `torch.OutOfMemoryError`, but mean the same."""


def peak_memory(device: str) -> int | None:
    """Highest number of bytes in use since the process began; None where the system does not tell.

    On a CUDA device, what torch has reserved there since its last reset: that includes the memory of CUDA graphs, which
    does not count as allocated, and the allocator's cache. Elsewhere the resident set size of the process.
    """
    if device.startswith("cuda"):
        return torch.cuda.max_memory_reserved(device)
    return None if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT


def device_name(device: str) -> str:
    """What to call a device: the name of a CUDA device, or CPU."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device.upper()


def lacks_memory(error: BaseException) -> bool:
    """Whether an exception says that memory of a GPU or of the machine could not be allocated."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in OUT_OF_MEMORY)
