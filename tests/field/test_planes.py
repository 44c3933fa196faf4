"""Looks at the planes of a level: derivatives against autograd's, and the kernel against both."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from consistent4d_ns.device import kernels
from consistent4d_ns.field.planes import plane_features, plane_features_and_jacobian
from consistent4d_ns.field.types import AXIS_PAIRS, SPACE_PAIRS, PlaneReduction, resolution_of
from tests.support.interpreted import needs_triton, run_interpreted
from tests.support.one_order import deterministic

RESOLUTIONS = [(7, 6, 5, 3), (9, 4, 1, 1), (7, 6, 5, 0)]
"""The second has axes on which nothing changes, the third no planes over time."""


def random_planes(resolution: Sequence[int], channels: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    pairs = AXIS_PAIRS if resolution[3] else SPACE_PAIRS
    shapes = [(1, channels, resolution[b], resolution[a]) for a, b in pairs]
    return [torch.rand(shape, generator=generator) + 0.2 for shape in shapes]


def random_coordinates(count: int) -> Tensor:
    """Inside the box and outside; the first few on its border or its middle."""
    generator = torch.Generator().manual_seed(1)
    coordinates = torch.rand(count, 4, generator=generator) * 2.4 - 1.2
    coordinates[:20] = torch.randint(-1, 2, (min(count, 20), 4), generator=generator).float()
    return coordinates


def beside_lines(coordinates: Tensor, resolution: Sequence[int], share: float = 1e-3) -> Tensor:
    """The coordinates, at least that share of a cell away from the lines between cells, where derivatives jump."""
    cells = (torch.tensor(resolution) - 1).clamp(min=1)
    place = (coordinates.double() + 1.0) / 2.0 * cells
    place = place.floor() + (place - place.floor()).clamp(share, 1.0 - share)
    return (place / cells * 2.0 - 1.0).to(coordinates.dtype)


@pytest.mark.parametrize("resolution", RESOLUTIONS)
@pytest.mark.parametrize("reduction", ["product", "hybrid"])
def test_jacobian_is_the_derivative_of_the_features(resolution: Sequence[int], reduction: PlaneReduction) -> None:
    planes = [plane.double() for plane in random_planes(resolution, 3)]
    coordinates = random_coordinates(200)[20:].double().requires_grad_()
    features, jacobian = plane_features_and_jacobian(planes, coordinates, reduction)
    expected = plane_features(planes, coordinates, reduction)
    torch.testing.assert_close(features, expected)
    for channel in range(3):
        (wanted,) = torch.autograd.grad(expected[:, channel].sum(), coordinates, retain_graph=True)
        torch.testing.assert_close(jacobian[:, :, channel], wanted[:, :3])


def test_derivatives_at_lines_and_borders() -> None:
    """Of a plane of columns 0, 1, 3 along x: 1 and then 2 per cell, which is 1 wide."""
    planes = [torch.ones(1, 1, 2, 3 if axes[0] == 0 else 2) for axes in AXIS_PAIRS]
    planes[0] = torch.tensor([0.0, 1.0, 3.0]).expand(1, 1, 2, 3)
    coordinates = torch.zeros(5, 4)
    coordinates[:, 0] = torch.tensor([-1.01, -1.0, 0.0, 1.0, 1.01])
    features, jacobian = plane_features_and_jacobian(planes, coordinates, "product")
    assert features[:, 0].tolist() == [0.0, 0.0, 1.0, 3.0, 3.0]
    assert jacobian[:, 0, 0].tolist() == [0.0, 1.0, 2.0, 2.0, 0.0]
    assert not jacobian[:, 1:].any()


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_resolution_of_planes(resolution: Sequence[int]) -> None:
    assert resolution_of(random_planes(resolution, 2)) == resolution


@pytest.mark.parametrize("frames", [2, 0])
@pytest.mark.parametrize("reduction", ["product", "hybrid"])
def test_gradients_of_features_and_jacobian(reduction: PlaneReduction, frames: int) -> None:
    planes = [plane.double().requires_grad_() for plane in random_planes((3, 4, 2, frames), 2)]
    coordinates = random_coordinates(27)[20:].double()
    assert torch.autograd.gradcheck(lambda *p: plane_features_and_jacobian(p, coordinates, reduction), planes)


def results_and_gradients(look: Any, planes: list[Tensor], *arguments: Any) -> list[Tensor]:
    """What a function of planes returns, and gradients of a random combination of it."""
    planes = [plane.clone().requires_grad_() for plane in planes]
    results = look(planes, *arguments)
    results = [results] if isinstance(results, Tensor) else list(results)
    generator, total = torch.Generator().manual_seed(2), 0.0
    for result in results:
        weights = torch.randn(result.shape, generator=generator, dtype=torch.float64)
        total = total + (result * weights.to(result)).sum()
    assert isinstance(total, Tensor)
    return [*(result.detach() for result in results), *torch.autograd.grad(total, planes)]


def relative_error(results: list[Tensor], expected: list[Tensor]) -> float:
    """The largest relative L2 distance of any result."""
    pairs = [(ours.double().cpu(), theirs.double().cpu()) for ours, theirs in zip(results, expected, strict=True)]
    assert all(ours.shape == theirs.shape for ours, theirs in pairs)
    return max(float((ours - theirs).norm() / theirs.norm().clamp(min=1e-30)) for ours, theirs in pairs)


def kernel_error(
    resolution: Sequence[int], channels: int, count: int, reduction: PlaneReduction, device: str = "cpu"
) -> float:
    """How far the kernel is from torch in float64: values, derivatives and gradients through both or one of them."""
    from consistent4d_ns.field.planes_kernel import fused_features, fused_features_and_jacobian

    planes, coordinates = random_planes(resolution, channels), random_coordinates(count)
    # Rounding must not decide the cell. The first few, on lines and borders, are exact in float32 as well.
    coordinates[20:] = beside_lines(coordinates[20:], resolution)
    doubles, moved = [plane.double() for plane in planes], [plane.to(device) for plane in planes]
    errors = []
    for fused, plain in (
        (fused_features, plane_features),
        (fused_features_and_jacobian, plane_features_and_jacobian),
        (lambda *a: fused_features_and_jacobian(*a)[1], lambda *a: plane_features_and_jacobian(*a)[1]),
    ):
        expected = results_and_gradients(plain, doubles, coordinates.double(), reduction)
        found = results_and_gradients(fused, moved, coordinates.to(device), reduction)
        errors.append(relative_error(found, expected))
    return max(errors)


def assert_kernel_agrees() -> None:
    """Interpreted: widths that are powers of two and not, blocks that are not full, no samples, several copies."""
    for resolution in RESOLUTIONS:
        assert kernel_error(resolution, 5, 66, "product") < 1e-5
        assert kernel_error(resolution, 8, 21, "hybrid") < 1e-5
    assert kernel_error(RESOLUTIONS[0], 2, 0, "product") == 0
    with deterministic():
        assert kernel_error(RESOLUTIONS[0], 5, 66, "product") < 1e-5
        assert kernel_error(RESOLUTIONS[0], 2, 0, "product") == 0
        assert_sums_in_any_order_are_equal("cpu")
        assert_no_sum_overflows("cpu")


def assert_sums_in_any_order_are_equal(device: str, count: int = 50) -> None:
    """The same gradient, to the last bit, from samples in another order and with others that have none; NaN stays."""
    from consistent4d_ns.field.planes_kernel import fused_features

    planes = [plane.to(device).requires_grad_() for plane in random_planes(RESOLUTIONS[0], 4)]
    coordinates = random_coordinates(count).to(device)
    upstream = torch.randn(count, 4, generator=torch.Generator().manual_seed(5)).to(device) ** 9
    order = torch.randperm(count, generator=torch.Generator().manual_seed(6)).to(device)
    padding = torch.zeros(30, 4, device=device)

    def gradients(coordinates: Tensor, upstream: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(fused_features(planes, coordinates, "product"), planes, upstream))

    expected = gradients(coordinates, upstream)
    found = gradients(torch.cat((coordinates[order], padding)), torch.cat((upstream[order], padding)))
    assert all(map(torch.equal, found, expected))
    assert all(gradient.any() for gradient in expected)
    for wrong in (torch.nan, torch.inf):
        upstream[7] = wrong
        assert not any(gradient.isfinite().any() for gradient in gradients(coordinates, upstream))


def assert_no_sum_overflows(device: str, count: int = 50) -> None:
    """All samples at one place, whose summands fill the whole numbers: each corner of the cell has the largest once.

    Of the three planes, the first has by far the largest gradient, because its values are small.
    """
    from consistent4d_ns.field import planes_kernel

    planes = [torch.full((1, 2, 2, 2), value, device=device).requires_grad_() for value in (1e-4, 1.0, 1.0)]
    for x, y in product((-0.999, 0.999), repeat=2):
        coordinates = torch.tensor([x, y, 0.5, 0.0], device=device).repeat(count, 1)
        upstream = torch.full((count, 2), -1e6, device=device)
        with mock.patch.object(planes_kernel, "FRACTION_BITS", 62):
            features = planes_kernel.fused_features(planes, coordinates, "product")
            found = torch.autograd.grad(features, planes, upstream)
        there = [plane.cpu() for plane in planes]  # on CUDA, the backward pass of torch takes sums in any order
        expected = torch.autograd.grad(in_torch(there, coordinates.cpu()), planes, upstream.cpu())
        assert relative_error(list(found), list(expected)) < 1e-5


def in_torch(planes: Sequence[Tensor], coordinates: Tensor) -> Tensor:
    """Features without the kernel."""
    with mock.patch.object(kernels, "usable", return_value=False):
        return plane_features(list(planes), coordinates, "product")


@needs_triton
def test_summands_fit_into_whole_numbers() -> None:
    """Four of each sample, as large as the largest, in 64 bits; the scale is the same whatever padding there is."""
    from consistent4d_ns.field.planes_kernel import FRACTION_BITS, _fixed_point_scale

    counts = (0, 1, 2**26 - 1, 2**26, 2**40)
    for largest in (0.0, 1e-45, 1e-20, 0.99, 1.0, 3.4e38):
        scales = [float(_fixed_point_scale(torch.tensor([largest]), count)) for count in counts]
        assert scales[0] == scales[1] == scales[2]
        assert all(4 * count * largest * scale < 2**63 for count, scale in zip(counts, scales, strict=True))
        assert largest < 1e-25 or largest * scales[0] >= 2 ** (FRACTION_BITS - 1)


@pytest.mark.slow
@needs_triton
def test_kernel_agrees_when_interpreted() -> None:
    run_interpreted(assert_kernel_agrees)
