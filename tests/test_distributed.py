"""Two processes train one model: each draws its own step, gradients are their mean."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from nerfstudio.models.base_model import Model
from torch.nn.parallel import DistributedDataParallel

from consistent4d_ns.planning import StepKind
from tests.tiny import first_step, losses_and_gradients, tiny_pipeline, toy_folder

RANKS = 2
KINDS = (StepKind.REFERENCE, StepKind.AZIMUTHS)
"""What each rank's step is: different ones, so that equal gradients cannot be an accident."""


def train_one_step(rank: int, data: Path, out: Path) -> None:
    """What one rank does; writes its gradients."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "RANK": str(rank), "WORLD_SIZE": str(RANKS)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{out / 'rendezvous'}", rank=rank, world_size=RANKS)
    pipeline = tiny_pipeline(data)
    # Nerfstudio wraps exactly this attribute, for CUDA devices.
    pipeline._model = cast(Model, DistributedDataParallel(pipeline._model, find_unused_parameters=True))
    _, gradients = losses_and_gradients(pipeline, first_step(pipeline, KINDS[rank]))
    torch.save(gradients, out / f"{rank}.pt")
    dist.destroy_process_group()


def test_gradients_are_the_mean_over_ranks(tmp_path):
    data = toy_folder(tmp_path)
    mp.spawn(train_one_step, (data, tmp_path), nprocs=RANKS)  # pyright: ignore[reportPrivateImportUsage]
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]
    alone = tiny_pipeline(data)
    expected = [losses_and_gradients(alone, first_step(alone, kind))[1] for kind in KINDS]
    for name in expected[0]:
        mean = (expected[0][name] + expected[1][name]) / 2
        for gradients in ranks:
            torch.testing.assert_close(gradients[name], mean, rtol=1e-4, atol=1e-6 * float(mean.abs().max()))
