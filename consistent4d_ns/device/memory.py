"""How much memory a process has used, may use, and whether it was too little."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import torch

try:
    import resource
except ImportError:  # Windows
    resource = None

RSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in which the system counts the resident set size."""
OUT_OF_MEMORY = ("DefaultCPUAllocator: can't allocate memory", "not enough memory", "CUDA error: out of memory")
"""What errors say that are not of the kind of `torch.OutOfMemoryError`, but mean the same."""
NO_LIMIT = 1 << 60
"""Version 1 of control groups writes a number beyond this where there is no limit."""


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


def memory_limit() -> int | None:
    """Bytes of memory that this process may use: the machine's, or less where a control group limits it.

    None where the system does not tell.
    """
    try:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        machine = None
    return min((limit for limit in (machine, *cgroup_limits(Path("/"))) if limit), default=None)


def cgroup_limits(root: Path) -> Iterator[int]:
    """Limits in bytes of the control groups (Linux, version 1 and 2) that this process is in, and those above them.

    Args:
        root: Root of the file system, which holds `proc` and `sys`.
    """
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers not in ("", "memory"):
            continue
        folder, name = (root / "sys/fs/cgroup", "memory.max")
        if controllers == "memory":
            folder, name = folder / "memory", "memory.limit_in_bytes"
        group = PurePosixPath(path.lstrip("/"))
        for above in (group, *group.parents):
            for limit in _lines(folder / above / name):
                if limit.isdecimal() and int(limit) < NO_LIMIT:
                    yield int(limit)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except (OSError, ValueError):
        return []
