"""What every test relies on: one thread per process, the same arithmetic on every CPU, recorded numbers, real data."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

# Both are read when torch is imported, here and in every process that a test starts. Tests run in several workers, so
# one thread each is fastest; threads that spin while they wait would slow down everything else.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Programs that a script starts in the background ignore Ctrl-C, and so would tests and what they start.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

from tests.support import bytecode  # noqa: I001  (before whatever else is imported)

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file
from torch import Tensor

from tests.support.forked import spawn, start_server, use_server, wait_for_server

HERE = Path(__file__).parent
SHARED = HERE.parent.parent / "shared"
LONGEST = ("test_table.py", "test_browser.py", "test_export.py", "test_commands.py")
"""Files whose tests take half a minute or more, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run files with slow tests first and the longest of all before the others.

    So no worker begins a long one when the others have finished.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (rank.get(item.path.name, len(LONGEST)), item.path not in slow))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One worker more than there are cores, because some tests wait for a server or a browser; at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, cores + 1)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Start the server of forked processes, once for all workers, while they collect their tests.

    Where nothing is compiled yet, they wait for it: otherwise each of them would compile the same.
    """
    if node.config.option.markexpr != "not slow":
        node.workerinput["server"] = start_server()
        if bytecode.IS_MISSING:
            wait_for_server()


def pytest_configure(config: pytest.Config) -> None:
    """In a worker, use the server that its controller has started."""
    if address := getattr(config, "workerinput", {}).get("server"):
        use_server(address)


def golden_path(name: str) -> Path:
    """Path of a file of recorded numbers: in `tests/golden`, else in the full collection; skips if in neither."""
    for folder in (HERE / "golden", SHARED / "golden"):
        if (folder / name).exists():
            return folder / name
    pytest.skip(f"needs golden/{name} of the shared collection, which is not beside this checkout")


@pytest.fixture(autouse=True, scope="session")
def float32_priors() -> Iterator[None]:
    """Run the priors in float32 unless a test says otherwise, also on CPUs where bfloat16 would be faster."""
    with mock.patch("consistent4d_ns.guidance.latent.multiplies_bf16", return_value=False):
        yield


@pytest.fixture(autouse=True, scope="session")
def quickly_spawned_processes() -> Iterator[None]:
    """Start the processes of `torch.multiprocessing.spawn` as forks of a server that has imported Nerfstudio."""
    with mock.patch.object(mp, "spawn", spawn):
        yield


@pytest.fixture
def without_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs end without the plot of their losses, which takes longer to draw than a hundred steps."""
    monkeypatch.setattr("consistent4d_ns.record.report.TrainingReport.draw_losses", lambda self: None)


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, Tensor]]:
    """A function that loads the recorded tensors of one .safetensors or .npz file."""

    def load(name: str) -> dict[str, Tensor]:
        path = golden_path(name)
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                return {key: torch.from_numpy(arrays[key]) for key in arrays.files}
        return load_file(path)

    return load


@pytest.fixture(scope="session")
def golden_json() -> Callable[[str], Any]:
    """A function that loads one .json file of recorded numbers."""
    return lambda name: json.loads(golden_path(name).read_text())


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real sequences and ground-truth renders; skips if it is not beside this checkout."""
    if not (SHARED / "data").is_dir():
        pytest.skip("needs the shared real sequences, which are not beside this checkout")
    return SHARED / "data"
