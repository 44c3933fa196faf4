"""Kernels for the CPU, written in C: compiled when first used, where there is a C compiler, and called by ctypes.

Compiling takes half a second, so nothing is kept from one process to the next. Every kernel computes what a readable
PyTorch function computes, which is used where there is no compiler.
"""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from consistent4d_ns.device import compilers
from consistent4d_ns.device.compilers import FLAGS
from consistent4d_ns.messages import say

ITEMS_PER_THREAD = 1024
"""Items (points, rays) that are worth starting a thread for."""


@cache
def compiler() -> tuple[str, ...] | None:
    """The C compiler, if there is one that works (see `compilers`); says so once if there is none."""
    found = compilers.find_compiler()
    if found is None:
        wanted = compilers.wanted_compiler()
        say(f"There is no C compiler that works ({wanted}): torch computes what kernels would, which takes longer.")
    return found


def usable(*tensors: Tensor) -> bool:
    """Whether the kernels accept these tensors: float32 on the CPU, with a compiler installed."""
    return all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors) and compiler() is not None


@cache
def load(source: Path, *definitions: str, flags: tuple[str, ...] = ()) -> ctypes.CDLL:
    """The functions of a C file, compiled for this CPU.

    Args:
        source: The file.
        definitions: Macros, as NAME=VALUE.
        flags: Further options of the compiler.
    """
    with tempfile.TemporaryDirectory(prefix="consistent4d-") as folder:
        library = Path(folder) / "kernel.so"
        macros = [f"-D{definition}" for definition in definitions]
        command = [*(compiler() or ()), *FLAGS, *flags, *macros, str(source), "-o", str(library)]
        subprocess.run(command, check=True)
        return ctypes.CDLL(str(library))


def threads_for(items: int) -> int:
    """How many threads share some number of items: at most torch's."""
    return max(1, min(torch.get_num_threads(), items // ITEMS_PER_THREAD))


def pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    """Where the values of a contiguous tensor are; NULL for None."""
    assert tensor is None or tensor.is_contiguous()
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())
