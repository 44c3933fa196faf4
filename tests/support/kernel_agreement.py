"""Kernels against the plain functions: on a CUDA device, or on the CPU where TRITON_INTERPRET=1 interprets them."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from consistent4d_ns.field import heads, heads_kernel
from consistent4d_ns.rendering import compositing_kernel as rendering_kernel
from consistent4d_ns.rendering import sampling_kernel
from consistent4d_ns.rendering.compositing import composite
from consistent4d_ns.rendering.sampling import OccupancyGrid, PackedSamples, lattice_samples, ray_offsets
from tests.support.agreement import assert_agrees

STEP = 0.04
COUNTS = {
    "mixed": [3, 0, 1, 33, 0, 17, *[k % 7 for k in range(70)], 0],
    "one": [1],
    "nothing": [0] * 5,
    "no rays": [],
}
"""Samples per ray; more rays than a program takes."""
COMPOSITE_RESULTS = ("weights", "accumulation", "colour", "depth", "gradient of density", "gradient of features")
Outputs = tuple[Tensor, ...]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def packed(counts: list[int]) -> PackedSamples:
    """Rays with the given numbers of samples, side by side from distance 1 on."""
    rays = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts, dtype=torch.long))
    places = torch.cat([torch.arange(count) for count in counts]) if counts else torch.empty(0)
    return PackedSamples(rays, 1.0 + STEP * places, torch.zeros(len(rays), 3), STEP, ray_offsets(rays, len(counts)))


def with_gradients(
    render: Callable[[Tensor, Tensor], Outputs], density: Tensor, features: Tensor, used: tuple[int, ...]
) -> list[Tensor]:
    """Results of `render`, then the gradients of a random combination of the `used` ones, in float64 on the CPU."""
    leaves = [density.clone().requires_grad_(), features.clone().requires_grad_()]
    outputs = render(*leaves)
    factors = [torch.randn(o.shape, generator=seeded(i)).to(o) for i, o in enumerate(outputs)]
    gradients = torch.autograd.grad([(outputs[i] * factors[i]).sum() for i in used], leaves, materialize_grads=True)
    return [t.detach().double().cpu() for t in (*outputs, *gradients)]


def check_composite(device: str) -> None:
    """Values and gradients, against float64, with and without a gradient in the weights."""
    for name, counts in COUNTS.items():
        samples = packed(counts)
        # From empty to opaque within a segment.
        density = torch.exp(4 * torch.randn(2, len(samples), generator=seeded(1)) + 1)
        density[:, ::7] = 0.0
        features = torch.randn(2, len(samples), 3, generator=seeded(2))

        def plain(density: Tensor, features: Tensor, samples: PackedSamples = samples) -> Outputs:
            doubled = PackedSamples(samples.ray_indices, samples.starts.double(), samples.points, STEP, samples.offsets)
            return tuple(vars(composite(density, features, doubled)).values())

        def fused(density: Tensor, features: Tensor, samples: PackedSamples = samples) -> Outputs:
            place = samples.starts.to(device), samples.offsets.to(device)
            return rendering_kernel.composite(density, features, *place, STEP)

        for used in ((0, 1, 2, 3), (1, 2), (0,)):
            expected = with_gradients(plain, density.double(), features.double(), used)
            found = with_gradients(fused, density.to(device), features.to(device), used)
            for what, ours, theirs in zip(COMPOSITE_RESULTS, found, expected, strict=True):
                largest = float(theirs.abs().amax()) if theirs.numel() else 0.0
                assert_agrees(f"{what}, {name}", ours, theirs, 2e-6 * max(1.0, largest))
        check_padded_composite(name, samples, density, features, device)


def check_padded_composite(name: str, samples: PackedSamples, density: Tensor, features: Tensor, device: str) -> None:
    """Padding changes nothing for the samples, and has neither weight nor gradient."""
    more = 9
    longer = samples.padded(len(samples) + more)
    padded = torch.cat((density, density.new_ones(2, more)), 1), torch.cat((features, features.new_ones(2, more, 3)), 1)

    def results(samples: PackedSamples, density: Tensor, features: Tensor) -> list[Tensor]:
        place = samples.starts.to(device), samples.offsets.to(device), STEP
        leaves = density.to(device), features.to(device)
        return with_gradients(lambda *given: rendering_kernel.composite(given[0], given[1], *place), *leaves, (1, 2))

    expected, found = results(samples, density, features), results(longer, *padded)
    for what, ours, theirs in zip(COMPOSITE_RESULTS, found, expected, strict=True):
        of_samples = what in ("weights", "gradient of density", "gradient of features")
        assert torch.equal(ours[:, : len(samples)] if of_samples else ours, theirs), f"{what}, {name}, padded"
        assert not of_samples or not ours[:, len(samples) :].any(), f"{what} of padding, {name}"


def lattice_rays(count: int) -> tuple[Tensor, Tensor]:
    """Origins and directions in, around and past the box, two of them along axes, and some that lead nowhere."""
    origins = torch.randn(count, 3, generator=seeded(3)) * 1.5
    directions = F.normalize(torch.randn(count, 3, generator=seeded(4)), dim=-1)
    directions[:2] = torch.tensor([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])
    origins[:2] = torch.tensor([[0.3, 0.2, 3.0], [-3.0, 1.5, 0.0]])
    origins[2], directions[2], directions[3], origins[4] = 0.1, 0.0, torch.nan, torch.nan
    return origins, directions


def check_lattice(device: str) -> None:
    """The same samples in the same order, with and without jitter and limits, in full, thin and empty grids."""
    count = 70 if device == "cpu" else 150
    rays = lattice_rays(count)
    jitter, nears = torch.rand(count, generator=seeded(5)), torch.rand(count, generator=seeded(6))
    fars = nears + 1.0 + torch.rand(count, generator=seeded(7))
    for share in (0.3, 1.0, 0.0):
        grid = OccupancyGrid(8, STEP)
        grid.occupied = torch.rand(8**3, generator=seeded(8)) < share
        compare_samples(grid, *rays, jitter, None, None, device)
        compare_samples(grid, *rays, None, nears, fars, device)
        compare_samples(grid, torch.empty(0, 3), torch.empty(0, 3), None, None, None, device)


def compare_samples(
    grid: OccupancyGrid,
    origins: Tensor,
    directions: Tensor,
    jitter: Tensor | None,
    nears: Tensor | None,
    fars: Tensor | None,
    device: str,
) -> None:
    """Fails where the kernel finds other samples than torch does on the CPU."""
    expected = lattice_samples(origins, directions, STEP, jitter, grid, nears, fars)
    j, n, f = (None if t is None else t.to(device) for t in (jitter, nears, fars))
    place = origins.to(device), directions.to(device), STEP, j
    found = sampling_kernel.grid_samples(*place, grid.occupied.to(device), grid.resolution, n, f)
    names = ("ray_indices", "starts", "points", "offsets")
    for name, ours in zip(names, found, strict=True):
        assert torch.equal(ours.cpu(), getattr(expected, name)), name
    assert int(sampling_kernel.sample_offsets(*place, grid.occupied.to(device), grid.resolution, n, f)[-1]) == len(
        expected
    )
    for capacity in (len(expected) + 37, max(1, len(expected) - 37)):
        found = sampling_kernel.grid_samples(*place, grid.occupied.to(device), grid.resolution, n, f, capacity)
        for name, ours in zip(names, found, strict=True):
            assert torch.equal(ours.cpu(), getattr(expected.padded(capacity), name)), f"{name} with room for {capacity}"


def head_pair(channels: int, hidden: int) -> nn.ModuleDict:
    """Heads of density and colour."""
    torch.manual_seed(9)
    return nn.ModuleDict({n: heads.make_head(channels, hidden, size, "torch") for n, size in (("d", 1), ("c", 3))})


def decided_features(pair: nn.ModuleDict, count: int, channels: int) -> Tensor:
    """Features that leave no hidden unit near its kink, where rounding would decide; the first exactly there."""
    features = torch.randn(2 * count + 10, channels, generator=seeded(10))
    units = torch.cat([features @ heads.head_weights(head)[0].T for head in pair.values()], dim=1)
    features = features[units.abs().amin(dim=1) > 1e-4][:count]
    assert len(features) == count
    features[:1] = 0.0
    return features


def head_results(
    pair: nn.ModuleDict, features: Tensor, jacobian: Tensor | None, colour: bool, used: tuple[str, ...]
) -> dict[str, Tensor]:
    """What the heads say, then gradients of a random combination of the `used` results, in float64 on the CPU."""
    leaves = {"features": features.clone().requires_grad_(), **dict(pair.named_parameters())}
    if jacobian is not None:
        leaves["jacobian"] = jacobian = jacobian.clone().requires_grad_()
    values = heads.head_values(pair["d"], pair["c"] if colour else None, leaves["features"], jacobian)._asdict()
    total = [(values[name] * torch.randn(values[name].shape, generator=seeded(11)).to(features)).sum() for name in used]
    gradients = torch.autograd.grad(total, list(leaves.values()), materialize_grads=True)
    results = {name: value for name, value in values.items() if value is not None}
    results |= {f"gradient of {name}": gradient for name, gradient in zip(leaves, gradients, strict=True)}
    return {name: result.detach().double().cpu() for name, result in results.items()}


def check_heads(device: str) -> None:
    """Values and gradients, against float64: paddings, no samples, blocks that are not full, several per program."""
    for channels, hidden in ((8, 12), (12, 16), (16, 32), (32, 32)):
        pair = head_pair(channels, hidden)
        for count in (0, 1, 170 if device == "cpu" else 100_001):
            features = decided_features(pair, count, channels)
            compare_heads(pair, features, torch.randn(count, 3, channels, generator=seeded(12)), device)


def compare_heads(pair: nn.ModuleDict, features: Tensor, jacobian: Tensor, device: str) -> None:
    """Fails where a kernel says something else than torch in float64, whatever is asked for and used."""
    layouts = [replace(heads_kernel.LAUNCH, backward_programs=4)]
    if device != "cpu":  # the interpreter multiplies in one way only
        layouts += [heads_kernel.LAUNCH, replace(heads_kernel.LAUNCH, precision="tf32x3")]
    for colour, given, used in (
        (False, None, ("density",)),
        (True, None, ("density", "colour")),
        (False, jacobian, ("gradient",)),
        (True, jacobian, ("colour",)),
        (True, jacobian, ("density", "colour", "gradient")),
    ):
        doubled, moved = (None, None) if given is None else (given.double(), given.to(device))
        expected = head_results(deepcopy(pair).double(), features.double(), doubled, colour, used)
        for layout in layouts:
            fused = mock.patch.object(heads, "runs_fused", return_value=True)
            with fused, mock.patch.object(heads_kernel, "LAUNCH", layout):
                found = head_results(deepcopy(pair).to(device), features.to(device), moved, colour, used)
            for name, wanted in expected.items():
                what = f"{name} at {len(features)} points, {pair['d']}, {used} used, {layout.precision}"
                assert_agrees(what, found[name], wanted, 1e-5, relative=True)
