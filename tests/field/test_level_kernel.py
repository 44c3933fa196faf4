"""The kernel for a level on the CPU against torch's planes and heads."""

from __future__ import annotations

from collections.abc import Sequence
from unittest import mock

import pytest
import torch
from torch import Tensor

from consistent4d_ns.device import c_kernels
from consistent4d_ns.field.cascade import KPlanesLevel
from consistent4d_ns.field.types import PlaneReduction
from tests.support.agreement import assert_agrees

needs_compiler = pytest.mark.skipif(c_kernels.compiler() is None, reason="needs a C compiler")


def make_level(resolution: Sequence[int], channels: int, hidden: int, reduction: PlaneReduction) -> KPlanesLevel:
    torch.manual_seed(0)
    level = KPlanesLevel(resolution, channels, hidden, reduction)
    for plane in level.planes:
        torch.nn.init.uniform_(plane, 0.5, 1.2)
    return level


def results(level: KPlanesLevel, coordinates: Tensor, colour: bool) -> dict[str, Tensor]:
    """The outputs, then gradients of a random combination of them."""
    values = level.read(coordinates, colour, gradient=False)
    outputs = {name: value for name, value in values._asdict().items() if value is not None}
    generator = torch.Generator().manual_seed(1)
    factors = [torch.randn(value.shape, generator=generator).to(value) for value in outputs.values()]
    for factor in factors:
        factor[::5] = 0.0  # samples that contribute to nothing
    total = [(value * factor).sum() for value, factor in zip(outputs.values(), factors, strict=True)]
    names, leaves = zip(*level.named_parameters(), strict=True)
    gradients = torch.autograd.grad(total, leaves, materialize_grads=True)
    return {name: value.detach() for name, value in (*outputs.items(), *zip(names, gradients, strict=True))}


@needs_compiler
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("colour", [True, False])
@pytest.mark.parametrize("count", [0, 1, 4000])
@pytest.mark.parametrize(
    ("resolution", "channels", "hidden", "reduction"),
    [
        ((7, 6, 5, 3), 8, 16, "product"),
        ((9, 4, 1, 1), 16, 32, "hybrid"),
        ((5, 5, 5, 2), 24, 8, "hybrid"),
        ((7, 6, 5, 0), 8, 16, "product"),
        ((9, 4, 1, 0), 16, 32, "hybrid"),
    ],
)
def test_kernel_agrees_with_torch(
    resolution: Sequence[int],
    channels: int,
    hidden: int,
    reduction: PlaneReduction,
    count: int,
    colour: bool,
    threads: int,
) -> None:
    level = make_level(resolution, channels, hidden, reduction)
    coordinates = torch.rand(count, 4, generator=torch.Generator().manual_seed(2)) * 2.4 - 1.2
    assert level.runs_in_c(coordinates)
    with mock.patch.object(torch, "get_num_threads", return_value=threads):
        found = results(level, coordinates, colour)
    expected = results(level.double(), coordinates.double(), colour)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        # A hidden unit at its kink may be judged differently in float64.
        assert_agrees(name, found[name].double(), value, 2e-5 * max(1.0, float(value.abs().max() if count else 0.0)))


def test_what_is_left_to_torch() -> None:
    level = make_level((4, 4, 4, 2), 8, 16, "product")
    assert not level.runs_in_c(torch.zeros(1, 4, dtype=torch.float64))
    assert not level.runs_in_c(torch.zeros(1, 4, requires_grad=True))
    assert not make_level((4, 4, 4, 2), 12, 16, "product").runs_in_c(torch.zeros(1, 4))
    with mock.patch.object(c_kernels, "compiler", return_value=None):
        assert not level.runs_in_c(torch.zeros(1, 4))
