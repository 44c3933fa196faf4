"""Data parallelism: one process per GPU, started by torchrun, or a single process."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor


def start() -> tuple[torch.device, int]:
    """This process's device and rank."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local = int(os.environ.get("LOCAL_RANK", 0))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if world > 1:
        dist.init_process_group("nccl" if cuda else "gloo", device_id=device if cuda else None)
    return device, rank


def generator(device: torch.device, rank: int, steps: int) -> torch.Generator:
    """Random generator of one process from a step on, seeded differently in each process and after each resumption."""
    return torch.Generator(device).manual_seed(1000 * steps + rank)


def processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def average(tensors: Sequence[Tensor]) -> None:
    """Replace the tensors, which have one dtype, by their means over all processes."""
    if not dist.is_initialized():
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    flat /= processes()
    for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))


def mean(value: float, device: torch.device) -> float:
    """The mean of a number over all processes, the same in each."""
    shared = torch.tensor(value, dtype=torch.float64, device=device)
    average([shared])
    return float(shared)


def finish() -> None:
    """Leave the group of processes."""
    if dist.is_initialized():
        dist.destroy_process_group()
