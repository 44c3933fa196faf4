"""When a function is recorded and what a replay gives: with a recorder that computes where CUDA would replay."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from consistent4d_ns.device.cuda_graphs import Function, Graphed, Recorder, Recording, Tensors


class Recomputing(Recorder):
    """Stands in for a CUDA graph: from fixed memory to fixed memory, by calling the function again."""

    def __init__(self) -> None:
        self.recorded: list[torch.Size] = []

    def record(self, function: Function, inputs: Tensors) -> Recording:
        self.recorded.append(inputs[0].shape)
        inputs = tuple(given.detach().clone() for given in inputs)
        outputs = function(*inputs)

        class Graph:
            def replay(self) -> None:
                for output, value in zip(outputs, function(*inputs), strict=True):
                    output.copy_(value)

        return Recording(Graph(), inputs, outputs)


def brighten(images: Tensor, amount: Tensor) -> Tensors:
    return images.detach() + amount, images.detach().mean()


@pytest.fixture
def recorders() -> list[Recomputing]:
    return []


@pytest.fixture
def graphed(recorders: list[Recomputing]) -> Graphed:
    def recorder() -> Recomputing:
        recorders.append(Recomputing())
        return recorders[-1]

    return Graphed(brighten, enabled=True, recorder=recorder)


def batch(views: int, side: int, value: float) -> tuple[Tensor, Tensor]:
    return torch.full((views, 3, side, side), value, requires_grad=True), torch.tensor(value)


def test_values_are_those_of_the_function_and_stay(graphed: Graphed) -> None:
    calls = [batch(4, 8, value) for value in (1.0, 2.0, 3.0)]
    results = [graphed(*inputs) for inputs in calls]
    for inputs, result in zip(calls, results, strict=True):
        for found, expected in zip(result, brighten(*inputs), strict=True):
            assert torch.equal(found, expected)


def test_each_signature_is_recorded_once(graphed: Graphed, recorders: list[Recomputing]) -> None:
    for views in (4, 2, 4, 2):
        graphed(*batch(views, 8, 1.0))
    images, amount = batch(2, 8, 1.0)
    graphed(images.double(), amount)
    assert [recorder.recorded for recorder in recorders] == [[(4, 3, 8, 8), (2, 3, 8, 8), (2, 3, 8, 8)]]


def test_a_new_image_size_lets_the_old_recordings_go(graphed: Graphed, recorders: list[Recomputing]) -> None:
    for views, side in ((4, 8), (1, 16), (2, 16), (4, 8)):
        graphed(*batch(views, side, 1.0))
    assert [recorder.recorded for recorder in recorders] == [
        [(4, 3, 8, 8)],
        [(1, 3, 16, 16), (2, 3, 16, 16)],
        [(4, 3, 8, 8)],
    ]
    graphed.forget()
    graphed(*batch(4, 8, 1.0))
    assert len(recorders) == 4


def test_what_is_not_enabled_is_just_called() -> None:
    inputs = batch(4, 8, 1.0)
    seen = []

    def function(*given: Tensor) -> Tensors:
        seen.append(given)
        return given

    assert all(a is b for a, b in zip(Graphed(function, enabled=False)(*inputs), inputs, strict=True))
    assert len(seen) == 1
