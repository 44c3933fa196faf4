"""Triton kernels agree with the plain functions where Triton interprets them on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from consistent4d_ns.device import kernels
from consistent4d_ns.field.heads import make_head, runs_fused
from tests.support.interpreted import needs_interpreted_loops, needs_triton, run_interpreted
from tests.support.kernel_agreement import check_composite, check_heads, check_lattice


@pytest.mark.slow
@needs_triton
@needs_interpreted_loops
@pytest.mark.parametrize("check", [check_composite, check_lattice, check_heads])
def test_kernel_agrees_when_interpreted(check: Callable[[str], None]) -> None:
    run_interpreted(check, "cpu")


def test_kernels_are_for_cuda_devices() -> None:
    assert not kernels.usable(torch.zeros(1))


class RecordedLaunches:
    """Stands in for a Triton kernel: notes what it is launched with, and which device is the current one then."""

    def __init__(self) -> None:
        self.launches: list[Any] = []
        self.current: object = None

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return lambda *arguments, **options: self.launches.append((grid, self.current, arguments, options))


def test_a_launch_is_on_the_device_of_the_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, tensor = RecordedLaunches(), torch.zeros(1)

    @contextmanager
    def device_of(first: torch.Tensor) -> Iterator[None]:
        kernel.current = first
        yield
        kernel.current = None

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    kernels.launch(kernel, (2, 3), tensor, 5, num_warps=4)
    assert kernel.launches == [((2, 3), tensor, (tensor, 5), {"num_warps": 4})]


def test_an_empty_grid_is_not_launched() -> None:
    kernel = RecordedLaunches()
    kernels.launch(kernel, (0, 3), torch.zeros(1))
    assert not kernel.launches


def test_wide_heads_and_those_of_others_are_left_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "usable", lambda tensor: True)
    features = torch.zeros(1, 16)
    assert runs_fused(make_head(16, 32, 1, "torch"), features)
    assert not runs_fused(make_head(16, 128, 1, "torch"), features)
    assert not runs_fused(torch.nn.Identity(), features)
