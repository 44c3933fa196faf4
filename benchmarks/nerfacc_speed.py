"""Compositing with nerfacc's functions in place of ours: time with gradients, and the largest difference.

    python -m benchmarks.nerfacc_speed

On the CPU, where nerfacc's functions of packed samples are missing (they are in its CUDA extension): its sums along
rays, which take packed samples on any device, and its weights, for which rays become rows of a matrix. The rays are
those of `benchmarks.rendering_speed`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import tyro
from nerfacc import accumulate_along_rays, render_weight_from_density
from torch import Tensor

from benchmarks.rendering_speed import LEVELS, ball
from benchmarks.steps import machine, milliseconds
from consistent4d_ns.rendering.compositing import composite, render_weights
from consistent4d_ns.rendering.sampling import PackedSamples

Sums = tuple[Tensor, Tensor, Tensor]
"""Accumulation [levels, rays], colour [levels, rays, 3] and expected depth [levels, rays]."""


@dataclass
class Options:
    """What is run."""

    sizes: tuple[tuple[int, int], ...] = ((64, 4), (256, 1))
    """Image side and number of views."""
    repeats: int = 10
    """Times that each is measured."""


def ours(density: Tensor, features: Tensor, samples: PackedSamples) -> Sums:
    """What `composite` returns."""
    result = composite(density, features, samples)
    return result.accumulation, result.colour, result.expected_depth


def nerfacc_sums(density: Tensor, features: Tensor, samples: PackedSamples) -> Sums:
    """Our weights and nerfacc's sums along rays, level by level."""
    weights, colours, mids = render_weights(density, samples), torch.sigmoid(features), samples.mids[:, None]
    place = samples.ray_indices, samples.num_rays
    return (
        torch.stack([accumulate_along_rays(w, None, *place)[:, 0] for w in weights]),
        torch.stack([accumulate_along_rays(w, c, *place) for w, c in zip(weights, colours, strict=True)]),
        torch.stack([accumulate_along_rays(w, mids, *place)[:, 0] for w in weights]),
    )


def nerfacc_dense(density: Tensor, features: Tensor, samples: PackedSamples) -> Sums:
    """Nerfacc's weights and sums, of all samples as a matrix with a row for each ray."""
    place = samples.ray_indices, torch.arange(len(samples)) - samples.offsets[samples.ray_indices]
    shape = len(density), samples.num_rays, int(samples.offsets.diff().max())
    sigmas = density.new_zeros(shape).index_put((torch.arange(len(density))[:, None], *place), density)
    colours = density.new_zeros(*shape, 3)
    colours = colours.index_put((torch.arange(len(density))[:, None], *place), torch.sigmoid(features))
    starts = density.new_zeros(shape[1:]).index_put(place, samples.starts).expand(shape)
    weights, *_ = render_weight_from_density(starts, starts + samples.step, sigmas)
    depth = accumulate_along_rays(weights, (starts + 0.5 * samples.step)[..., None])
    return accumulate_along_rays(weights)[..., 0], accumulate_along_rays(weights, colours), depth[..., 0]


WAYS: dict[str, Callable[[Tensor, Tensor, PackedSamples], Sums]] = {
    "ours": ours,
    "our weights, nerfacc's sums": nerfacc_sums,
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
        expected = ours(density, features, samples)
        for name, way in WAYS.items():

            def both_passes(way: Callable[..., Sums] = way) -> None:
                total = torch.stack([result.square().sum() for result in way(density, features, samples)]).sum()
                torch.autograd.grad(total, (density, features))

            found = way(density, features, samples)
            largest = max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True))
            ms = milliseconds(both_passes, options.repeats, "cpu")
            print(f"| {side} x {views} | {len(samples) / 1e3:.0f} | {name} | {ms:.1f} | {largest:.1e} |", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
