"""Compositing of packed samples as a pair of Triton kernels: `compositing.composite` with its gradient.

Each thread marches along one ray at one level. The forward pass accumulates the optical depth in front of the sample.
The backward pass marches from far to near and accumulates the contribution of the samples behind. With weights w,
transmittance T, colours c, distances t and

    q = dL/dw + dL/d accumulation + dL/d colour . c + dL/d expected depth * t,

the gradient with respect to the optical depth of sample i is q_i T_(i+1) - sum over j > i of q_j w_j. T_(i+1) is the
transmittance behind the last sample plus the weights of the samples j > i, so the backward pass needs only the weights
and that final transmittance from the forward pass.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

from consistent4d_ns.device.kernels import ceil_div, launch

RAYS = 64
"""Rays per program."""


@triton.jit
def _absorbed(optical):
    """1 - exp(-optical), accurate for small values."""
    series = 1.0 - optical / 6.0 * (1.0 - optical / 7.0)
    series = 1.0 - optical / 4.0 * (1.0 - optical / 5.0 * series)
    series = optical * (1.0 - optical / 2.0 * (1.0 - optical / 3.0 * series))
    return tl.where(optical < 0.25, series, 1.0 - tl.exp(-optical))


@triton.jit(do_not_specialize=["samples"])
def _forward(
    density, features, starts, offsets, weights, accumulation, colour, depth, final_transmittance, rays, samples, step,
    block: tl.constexpr,
):  # fmt: skip
    """Weights of the samples, their sums per ray and level, and the transmittance behind the last sample."""
    ray = tl.program_id(0) * block + tl.arange(0, block)
    valid = ray < rays
    begin = tl.load(offsets + ray, mask=valid, other=0)
    end = tl.load(offsets + ray + 1, mask=valid, other=0)
    level = tl.program_id(1).to(tl.int64)
    before = tl.zeros((block,), dtype=tl.float32)
    total = tl.zeros((block,), dtype=tl.float32)
    red = tl.zeros((block,), dtype=tl.float32)
    green = tl.zeros((block,), dtype=tl.float32)
    blue = tl.zeros((block,), dtype=tl.float32)
    distance = tl.zeros((block,), dtype=tl.float32)
    for i in range(tl.max(end - begin, axis=0)):
        sample = begin + i
        inside = sample < end
        entry = level * samples + sample
        optical = tl.load(density + entry, mask=inside, other=0.0) * step
        weight = tl.exp(-before) * _absorbed(optical)
        before += optical
        total += weight
        red += weight * tl.sigmoid(tl.load(features + 3 * entry, mask=inside, other=0.0))
        green += weight * tl.sigmoid(tl.load(features + 3 * entry + 1, mask=inside, other=0.0))
        blue += weight * tl.sigmoid(tl.load(features + 3 * entry + 2, mask=inside, other=0.0))
        distance += weight * (tl.load(starts + sample, mask=inside, other=0.0) + 0.5 * step)
        tl.store(weights + entry, weight, mask=inside)
    entry = level * rays + ray
    tl.store(accumulation + entry, total, mask=valid)
    tl.store(colour + 3 * entry, red, mask=valid)
    tl.store(colour + 3 * entry + 1, green, mask=valid)
    tl.store(colour + 3 * entry + 2, blue, mask=valid)
    tl.store(depth + entry, distance, mask=valid)
    tl.store(final_transmittance + entry, tl.exp(-before), mask=valid)


@triton.jit(do_not_specialize=["samples"])
def _backward(
    features, starts, offsets, weights, final_transmittance, grad_weights, grad_accumulation, grad_colour, grad_depth,
    grad_density, grad_features, rays, samples, step, block: tl.constexpr,
):  # fmt: skip
    """Gradients of density and features, given those of the forward pass' results; `grad_weights` may be None."""
    ray = tl.program_id(0) * block + tl.arange(0, block)
    valid = ray < rays
    begin = tl.load(offsets + ray, mask=valid, other=0)
    end = tl.load(offsets + ray + 1, mask=valid, other=0)
    level = tl.program_id(1).to(tl.int64)
    entry = level * rays + ray
    transmittance = tl.load(final_transmittance + entry, mask=valid, other=0.0)
    grad_total = tl.load(grad_accumulation + entry, mask=valid, other=0.0)
    grad_red = tl.load(grad_colour + 3 * entry, mask=valid, other=0.0)
    grad_green = tl.load(grad_colour + 3 * entry + 1, mask=valid, other=0.0)
    grad_blue = tl.load(grad_colour + 3 * entry + 2, mask=valid, other=0.0)
    grad_distance = tl.load(grad_depth + entry, mask=valid, other=0.0)
    later = tl.zeros((block,), dtype=tl.float32)
    for i in range(tl.max(end - begin, axis=0)):
        sample = end - 1 - i
        inside = sample >= begin
        entry = level * samples + sample
        weight = tl.load(weights + entry, mask=inside, other=0.0)
        red = tl.sigmoid(tl.load(features + 3 * entry, mask=inside, other=0.0))
        green = tl.sigmoid(tl.load(features + 3 * entry + 1, mask=inside, other=0.0))
        blue = tl.sigmoid(tl.load(features + 3 * entry + 2, mask=inside, other=0.0))
        grad_weight = grad_total + grad_red * red + grad_green * green + grad_blue * blue
        grad_weight += grad_distance * (tl.load(starts + sample, mask=inside, other=0.0) + 0.5 * step)
        if grad_weights is not None:
            grad_weight += tl.load(grad_weights + entry, mask=inside, other=0.0)
        tl.store(grad_density + entry, (grad_weight * transmittance - later) * step, mask=inside)
        tl.store(grad_features + 3 * entry, weight * grad_red * red * (1.0 - red), mask=inside)
        tl.store(grad_features + 3 * entry + 1, weight * grad_green * green * (1.0 - green), mask=inside)
        tl.store(grad_features + 3 * entry + 2, weight * grad_blue * blue * (1.0 - blue), mask=inside)
        transmittance += weight
        later += weight * grad_weight


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, density: Tensor, features: Tensor, starts: Tensor, offsets: Tensor, step: float
    ) -> tuple[Tensor, ...]:
        density, features = density.contiguous(), features.contiguous()
        levels, rays = len(density), len(offsets) - 1
        weights = torch.zeros_like(density)
        accumulation, depth, final_transmittance = density.new_empty(3, levels, rays).unbind()
        results = weights, accumulation, density.new_empty(levels, rays, 3), depth
        outputs = *results, final_transmittance
        _launch(_forward, levels, rays, density, features, starts, offsets, *outputs, step=step)
        ctx.step = step
        ctx.save_for_backward(features, starts, offsets, weights, final_transmittance)
        ctx.set_materialize_grads(False)
        return results

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        grad_weights, *grad_sums = gradients
        inputs = ctx.saved_tensors
        features, *_, weights, final_transmittance = inputs
        levels, rays = final_transmittance.shape
        shapes = (levels, rays), (levels, rays, 3), (levels, rays)
        grad_sums = [
            weights.new_zeros(shape) if gradient is None else gradient.contiguous()
            for gradient, shape in zip(grad_sums, shapes, strict=True)
        ]
        grad_weights = None if grad_weights is None else grad_weights.contiguous()
        results = torch.zeros_like(weights), torch.zeros_like(features)
        _launch(_backward, levels, rays, *inputs, grad_weights, *grad_sums, *results, step=ctx.step)
        return *results, None, None, None


def _launch(kernel: Any, levels: int, rays: int, first: Tensor, *others: Tensor | None, step: float) -> None:
    grid, samples = (ceil_div(rays, RAYS), levels), first.shape[1]
    launch(kernel, grid, first, *others, rays, samples, step, RAYS, num_warps=RAYS // 32)


def composite(
    density: Float[Tensor, "levels samples"],
    features: Float[Tensor, "levels samples 3"],
    starts: Float[Tensor, " samples"],
    offsets: Int64[Tensor, " rays+1"],
    step: float,
) -> tuple[
    Float[Tensor, "levels samples"],
    Float[Tensor, "levels rays"],
    Float[Tensor, "levels rays 3"],
    Float[Tensor, "levels rays"],
]:
    """Weights, accumulation, colour and expected depth in float32 (see `rendering.Composite`).

    Args:
        density: Densities of the samples.
        features: Raw colour features; their sigmoid is the colour.
        starts: Distances at which the samples' segments begin.
        offsets: Where each ray's samples begin, and the number of samples.
        step: Length of every segment.
    """
    return _Composite.apply(density, features, starts, offsets, step)  # pyright: ignore[reportReturnType]
