"""When a function is recorded and what a replay gives: with a recorder that computes where CUDA would replay."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from consistent4d_ns.device.cuda_graphs import Graphed, Tensors
from tests.support.recomputing import Recomputing


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


def test_a_recording_has_the_function_s_gradients_in_its_parameters() -> None:
    """Outputs without gradients, and parameters that no output depends on, have none."""
    weight, unused = torch.tensor([2.0, 3.0], requires_grad=True), torch.ones(3, requires_grad=True)

    def function(parameters: Tensors, given: Tensor) -> Tensors:
        product = parameters[1] * given
        return product, product.square().sum(), product.detach().sum()

    recording = Recomputing().record_with_gradients(function, (torch.zeros(2),), (unused, weight))
    for value in (1.0, 5.0):
        given = torch.tensor([value, -value])
        product, square, total = recording.replay((given,), (unused, weight))
        assert not total.requires_grad
        for found, expected in zip((product, square, total), function((unused, weight), given), strict=True):
            assert torch.equal(found, expected)
        weight.grad = None
        (3 * product.sum() + square).backward()
        assert weight.grad is not None
        torch.testing.assert_close(weight.grad, 3 * given + 2 * weight.detach() * given.square())
    assert unused.grad is None


def test_a_backward_pass_that_comes_too_late_is_refused() -> None:
    """Its intermediate results were overwritten."""
    weight = torch.tensor(2.0, requires_grad=True)
    recording = Recomputing().record_with_gradients(lambda own, given: (own[0] * given,), (torch.zeros(()),), (weight,))
    (early,), (late,) = (recording.replay((torch.tensor(value),), (weight,)) for value in (1.0, 2.0))
    with pytest.raises(RuntimeError, match="before the next call"):
        early.backward()
    late.backward()
    assert weight.grad == 2.0
