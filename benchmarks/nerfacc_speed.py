"""Compositing with nerfacc's torch functions, without its CUDA extension: time with gradients and largest difference.

    python -m benchmarks.nerfacc_speed

The package uses nerfacc's sums along rays, which accept packed samples on any device. They are compared with sums by
torch alone, and with nerfacc's weights and sums together. Without the extension, nerfacc's weights do not accept packed
samples, so there the samples are padded to a matrix with one row per ray. The rays are those of
`benchmarks.rendering_speed`. Times are milliseconds of this process's CPU time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
import tyro
from nerfacc import accumulate_along_rays, render_weight_from_density
from torch import Tensor

from benchmarks.rendering_speed import LEVELS, ball
from benchmarks.steps import machine
from consistent4d_ns.rendering.compositing import composite, render_weights
from consistent4d_ns.rendering.sampling import PackedSamples

Sums = tuple[Tensor, Tensor, Tensor]
"""Accumulation [levels, rays], colour [levels, rays, 3] and expected depth [levels, rays]."""


@dataclass
class Options:
    """Options of the benchmark."""

    sizes: tuple[tuple[int, int], ...] = ((64, 4), (256, 1))
    """Image side and number of views."""
    repeats: int = 10
    """Number of measurements."""


def as_used(density: Tensor, features: Tensor, samples: PackedSamples) -> Sums:
    """The implementation of `composite`: our weights, nerfacc's sums."""
    result = composite(density, features, samples)
    return result.accumulation, result.colour, result.expected_depth


def torch_sums(density: Tensor, features: Tensor, samples: PackedSamples) -> Sums:
    """Our weights, and torch's sums over all levels at once."""
    weights = render_weights(density, samples)

    def add(values: Tensor) -> Tensor:
        total = values.new_zeros(len(values), samples.num_rays, *values.shape[2:])
        return total.index_add(1, samples.ray_indices, values)

    return add(weights), add(weights[..., None] * torch.sigmoid(features)), add(weights * samples.mids)


def nerfacc_dense(density: Tensor, features: Tensor, samples: PackedSamples) -> Sums:
    """Nerfacc's weights and sums, with the samples padded to a matrix with one row per ray."""
    entries = samples.ray_indices, torch.arange(len(samples)) - samples.offsets[samples.ray_indices]
    shape = len(density), samples.num_rays, int(samples.offsets.diff().max())
    sigmas = density.new_zeros(shape).index_put((torch.arange(len(density))[:, None], *entries), density)
    colours = density.new_zeros(*shape, 3)
    colours = colours.index_put((torch.arange(len(density))[:, None], *entries), torch.sigmoid(features))
    starts = density.new_zeros(shape[1:]).index_put(entries, samples.starts).expand(shape)
    weights, *_ = render_weight_from_density(starts, starts + samples.step, sigmas)
    depth = accumulate_along_rays(weights, (starts + 0.5 * samples.step)[..., None])
    return accumulate_along_rays(weights)[..., 0], accumulate_along_rays(weights, colours), depth[..., 0]


IMPLEMENTATIONS: dict[str, Callable[[Tensor, Tensor, PackedSamples], Sums]] = {
    "our weights, nerfacc's sums (used)": as_used,
    "our weights, torch's sums": torch_sums,
    "nerfacc's weights and sums": nerfacc_dense,
}


def main(options: Options) -> None:
    """Measure and print."""
    print(machine())
    print("| px x views | k samples | with | ms | largest difference |\n|---|---|---|---|---|", flush=True)
    for side, views in options.sizes:
        samples = ball(side, views, "cpu").sample()
        density = (20 * torch.rand(LEVELS, len(samples))).requires_grad_()
        features = torch.randn(LEVELS, len(samples), 3).requires_grad_()
        expected = as_used(density, features, samples)
        for name, function in IMPLEMENTATIONS.items():
            sums = function(density, features, samples)
            largest = max(float((a - b).abs().detach().max()) for a, b in zip(sums, expected, strict=True))
            ms = median(milliseconds(function, density, features, samples) for _ in range(options.repeats))
            print(f"| {side} x {views} | {len(samples) / 1e3:.0f} | {name} | {ms:.0f} | {largest:.1e} |", flush=True)


def milliseconds(
    function: Callable[[Tensor, Tensor, PackedSamples], Sums], density: Tensor, features: Tensor, samples: PackedSamples
) -> float:
    """CPU time of forward and backward pass in ms, which hardly depends on other load on the machine."""
    begin = time.process_time()
    total = torch.stack([result.square().sum() for result in function(density, features, samples)]).sum()
    torch.autograd.grad(total, (density, features))
    return 1e3 * (time.process_time() - begin)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
