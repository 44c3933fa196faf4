"""Two processes that train together average what they have, and stop together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from training import parallel
from training.optimise import Optimiser

RANKS = 2


def work(rank: int, out: Path) -> None:
    """What one process does; writes what it finds."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{out / 'rendezvous'}", rank=rank, world_size=RANKS)
    tensors = [torch.full((2, 3), 1.0 + rank), torch.arange(4.0) * rank]
    parallel.average(tensors)
    device = torch.device("cpu")
    mean = parallel.mean(1.0 + rank, device)
    network = torch.nn.Linear(2, 1, bias=False)
    torch.nn.init.ones_(network.weight)
    optimiser = Optimiser(network, weight_decay=0.0, decay=0.9)
    # One process alone would raise the second weight, both together lower it.
    network.weight.grad = torch.tensor([[1.0, -1.0 if rank == 0 else 3.0]])
    norm = optimiser.step(0.1)
    found = {"tensors": tensors, "mean": mean, "processes": parallel.processes()}
    torch.save(found | {"weight": network.weight.data, "norm": norm}, out / f"{rank}.pt")
    parallel.finish()


@pytest.mark.slow
def test_two_processes_average(tmp_path: Path) -> None:
    mp.spawn(work, (tmp_path,), nprocs=RANKS)  # pyright: ignore[reportPrivateImportUsage]
    for rank in range(RANKS):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found["processes"] == RANKS
        torch.testing.assert_close(found["tensors"], [torch.full((2, 3), 1.5), torch.arange(4.0) / 2])
        assert found["mean"] == 1.5
        torch.testing.assert_close(found["weight"], torch.tensor([[0.9, 0.9]]))
        torch.testing.assert_close(found["norm"], torch.tensor(2.0**0.5))


def test_a_process_alone_keeps_what_it_has() -> None:
    tensor = torch.arange(3.0)
    parallel.average([tensor])
    assert tensor.tolist() == [0, 1, 2]
    assert parallel.processes() == 1
    assert parallel.mean(0.1, tensor.device) == 0.1


def test_processes_and_slices_draw_different_numbers() -> None:
    cpu = torch.device("cpu")
    places = [(0, 0), (1, 0), (0, 1), (0, 1000), (1, 1000)]
    drawn = {float(torch.rand(1, generator=parallel.generator(cpu, *place))) for place in places}
    assert len(drawn) == len(places)
