"""Where golden numbers and real data are found, and what is said when they are not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

# Threads that spin while waiting slow everything down when tests run beside other work; read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

HERE = Path(__file__).parent
SHARED = HERE.parent.parent / "shared"

torch.set_num_threads(2)


def golden_path(name: str) -> Path:
    """Path of a golden file: the copy kept here, else the full collection; skips when neither is there."""
    for folder in (HERE / "golden", SHARED / "golden"):
        if (folder / name).exists():
            return folder / name
    pytest.skip(f"needs golden/{name} of the shared collection, which is not beside this checkout")


@pytest.fixture(autouse=True, scope="session")
def same_numbers_on_every_cpu() -> Iterator[None]:
    """Priors run in float32 unless a test says otherwise, also where bf16 would be faster."""
    with mock.patch("consistent4d_ns.guidance.zero123.multiplies_bf16", return_value=False):
        yield


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, Tensor]]:
    """Loads the tensors of one golden file (.safetensors or .npz)."""

    def load(name: str) -> dict[str, Tensor]:
        path = golden_path(name)
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                return {key: torch.from_numpy(arrays[key]) for key in arrays.files}
        return load_file(path)

    return load


@pytest.fixture(scope="session")
def golden_json() -> Callable[[str], Any]:
    """Loads one golden .json file."""
    return lambda name: json.loads(golden_path(name).read_text())


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real sequences and ground-truth renders; skips where it is absent."""
    if not (SHARED / "data").is_dir():
        pytest.skip("needs the shared real sequences, which are not beside this checkout")
    return SHARED / "data"
