"""Volume rendering of packed samples, all cascade levels at once: pure functions (method.md section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

import torch
from jaxtyping import Float
from nerfacc import accumulate_along_rays
from torch import Tensor

from consistent4d_ns.device import c_kernels, kernels
from consistent4d_ns.rendering import compositing_cpu
from consistent4d_ns.rendering.sampling import PackedSamples

DEVICES_WITHOUT_FLOAT64 = ("mps",)
"""Device types without float64 tensors."""


@dataclass(frozen=True)
class Composite:
    """Volume-rendered values of each ray at every cascade level, and the rendering weights of the samples."""

    weights: Float[Tensor, "levels samples"]
    """Weight of each sample (see `render_weights`); 0 of padding."""
    accumulation: Float[Tensor, "levels rays"]
    """Sum of the weights: opacity in [0, 1]."""
    colour: Float[Tensor, "levels rays 3"]
    """Weighted sum of the colours, before any background."""
    expected_depth: Float[Tensor, "levels rays"]
    """Weighted sum of the distances, not divided by the accumulation."""


def composite(
    density: Float[Tensor, "levels samples"], features: Float[Tensor, "levels samples 3"], samples: PackedSamples
) -> Composite:
    """Volume-render samples of density and colour sigmoid(features) (method.md section 4)."""
    if kernels.usable(density):
        from consistent4d_ns.rendering import compositing_kernel as rendering_kernel

        return Composite(*rendering_kernel.composite(density, features, samples.starts, samples.offsets, samples.step))
    if c_kernels.usable(density, features, samples.starts):
        return Composite(*compositing_cpu.composite(density, features, samples.starts, samples.offsets, samples.step))
    weights = render_weights(density if samples.kept is None else density * samples.kept, samples)
    return Composite(
        weights,
        accumulate(weights, samples),
        accumulate(weights, samples, torch.sigmoid(features)),
        accumulate(weights * samples.mids, samples),
    )


def sum_before(values: Float[Tensor, "levels samples"], samples: PackedSamples) -> Float[Tensor, "levels samples"]:
    """Sum over the samples that come before each sample on its own ray.

    One running sum over all rays minus its value at the ray's first sample; in float64, because the running sum grows
    with the number of rays while the differences stay small. Apple's GPUs have no float64: see `sum_before_by_ray`.
    """
    if values.device.type in DEVICES_WITHOUT_FLOAT64:
        return sum_before_by_ray(values, samples)
    running = values.double().cumsum(dim=-1) - values
    return (running - running[:, samples.offsets[samples.ray_indices]]).to(values.dtype)


def sum_before_by_ray(
    values: Float[Tensor, "levels samples"], samples: PackedSamples
) -> Float[Tensor, "levels samples"]:
    """`sum_before` in the precision of its values, from a running sum for each ray.

    Rays are rows of a matrix as wide as the longest of them, which takes more memory than one list.
    """
    counts = samples.offsets.diff()
    longest = int(counts.max()) if len(counts) else 0
    rays = samples.ray_indices
    places = torch.arange(len(rays), device=rays.device) - samples.offsets[rays]
    rows = values.new_zeros(len(values), samples.num_rays, longest)
    rows = rows.index_put((torch.arange(len(values), device=rays.device)[:, None], rays, places), values)
    return (rows.cumsum(dim=-1) - rows)[:, rays, places]


def render_weights(density: Float[Tensor, "levels samples"], samples: PackedSamples) -> Float[Tensor, "levels samples"]:
    """Weight T (1 - exp(-sigma h)) of each sample in its ray's colour, T the transmittance before it."""
    optical = density * samples.step
    transmittance = torch.exp(-sum_before(optical, samples))
    return transmittance * -torch.expm1(-optical)


@overload
def accumulate(weights: Float[Tensor, "levels samples"], samples: PackedSamples) -> Float[Tensor, "levels rays"]: ...
@overload
def accumulate(
    weights: Float[Tensor, "levels samples"],
    samples: PackedSamples,
    values: Float[Tensor, "levels samples channels"],
) -> Float[Tensor, "levels rays channels"]: ...
def accumulate(weights: Tensor, samples: PackedSamples, values: Tensor | None = None) -> Tensor:
    """Sum of the weights, or of weighted values, along each ray; 0 for rays without samples."""
    place = samples.ray_indices, samples.num_rays
    if values is None:
        return torch.stack([accumulate_along_rays(weight, None, *place).squeeze(-1) for weight in weights])
    return torch.stack([accumulate_along_rays(*pair, *place) for pair in zip(weights, values, strict=True)])


def normalised_depth(
    expected_depth: Float[Tensor, "*rays"], accumulation: Float[Tensor, "*rays"], far: Float[Tensor, "*rays"] | float
) -> Float[Tensor, "*rays"]:
    """Depth of the visible surface: the weighted mean distance; `far` where the accumulation is at most 0.01."""
    visible = accumulation > 1e-2
    depth = expected_depth / accumulation.clamp(min=1e-2)
    return torch.where(visible, depth, torch.as_tensor(far, dtype=depth.dtype, device=depth.device).expand_as(depth))


def depth_variance(
    weights: Float[Tensor, "levels samples"], depth: Float[Tensor, "levels rays"], samples: PackedSamples
) -> Float[Tensor, "levels rays"]:
    """Weighted variance, sum w (t - depth)^2, of the distance around a depth, in squared world units."""
    return accumulate(weights * (samples.mids - depth[:, samples.ray_indices]).square(), samples)
