"""How a process uses its CUDA device."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Shaped
from torch import Tensor

from consistent4d_ns.errors import InputError


def usable_device(device: str | None) -> str:
    """The device of `--device`; by default CUDA if there is one, else the CPU.

    Raises:
        InputError: it is CUDA, and there is none.
    """
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise InputError("--device cuda: PyTorch finds no CUDA device here; `consistent4d doctor` says why.")
    return device or ("cuda" if has_cuda else "cpu")


def use_device(device: str) -> None:
    """Make a CUDA device the current one, and let its allocator extend existing segments; nothing on other devices.

    The number of samples changes from step to step. Without expandable segments torch keeps reserving memory for sizes
    that it has not seen before. Takes effect before the first use of CUDA; PYTORCH_CUDA_ALLOC_CONF takes precedence.
    """
    if device.startswith("cuda"):
        os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
        torch.cuda.set_device(torch.device(device).index or 0)


def take_sums_in_one_order() -> None:
    """Let torch, and kernels that ask it, use algorithms whose results do not depend on the order of threads.

    Takes effect before the first use of CUDA. Where torch has none, it raises an error (see `has_no_order`).
    """
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # what cuBLAS needs for it
    torch.use_deterministic_algorithms(True)
    # Else every new tensor is filled with NaN.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    torch.backends.cudnn.benchmark = False  # the fastest algorithm is another one each time


def has_no_order(error: BaseException) -> bool:
    """Whether an exception says that torch has no deterministic algorithm for something."""
    return isinstance(error, RuntimeError) and "does not have a deterministic implementation" in str(error)


def return_unused_memory() -> None:
    """After work that is not repeated, give the memory that torch keeps for later back to the CUDA device, if any."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def fetch(values: Shaped[Tensor, "*any"]) -> Callable[[], Shaped[Tensor, "*any"]]:
    """Start to bring values to the host. What is returned gives them, and waits for what was queued before this call.

    What is queued in between keeps the device busy meanwhile.
    """
    copy = values.to("cpu", non_blocking=True)  # into pinned memory
    if not values.is_cuda:
        return lambda: copy
    event = torch.cuda.Event()
    event.record()

    def arrived() -> Tensor:
        event.synchronize()
        return copy

    return arrived


@contextmanager
def trying_no_algorithms() -> Iterator[None]:
    """Let cuDNN choose algorithms by heuristics inside; Nerfstudio has it benchmark all of them.

    Benchmarking takes seconds and as much memory as the most demanding algorithm requests, tens of GiB in float32,
    which does not pay off for what is computed once.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
