"""Nerfstudio's launcher for CPU processes, which the original does not support: distributed training without GPUs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from nerfstudio.pipelines import base_pipeline
from nerfstudio.utils import comms
from torch.nn.parallel import DistributedDataParallel


class CPUDistributedDataParallel(DistributedDataParallel):
    """The wrapper that pipelines put around their model, ignoring `device_ids`."""

    def __init__(self, module: torch.nn.Module, device_ids: list[int], **options: Any) -> None:
        super().__init__(module, **options)


def launch(main_func: Callable[..., None], processes: int, config: Any) -> None:
    """Call `main_func` as `nerfstudio.scripts.train.launch` does, in processes that communicate over gloo.

    Args:
        main_func: Takes a process's local rank, the number of processes, `config` and its global rank.
        processes: Number of processes.
        config: Passed on.
    """
    with tempfile.TemporaryDirectory() as folder:
        arguments = main_func, processes, config, Path(folder) / "rendezvous"
        mp.spawn(_work, arguments, nprocs=processes)  # pyright: ignore[reportPrivateImportUsage]


def _work(rank: int, main_func: Callable[..., None], processes: int, config: Any, rendezvous: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=processes)
    comms.LOCAL_PROCESS_GROUP = dist.group.WORLD
    barrier = dist.barrier

    def wait_for_all(device_ids: list[int] | None = None) -> None:
        barrier()

    with (
        mock.patch.object(base_pipeline, "DDP", CPUDistributedDataParallel),
        mock.patch.object(dist, "barrier", wait_for_all),
    ):
        main_func(rank, processes, config, rank)
        comms.synchronize()
    dist.destroy_process_group()
