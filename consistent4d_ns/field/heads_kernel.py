"""The heads of a K-planes level as a pair of Triton kernels: raw density, raw colour and gradient of the density.

The backward pass computes the hidden layers again instead of keeping them, so that features and Jacobian are read once
and their gradients written once. Its programs go from block to block and add up gradients of weights in registers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from consistent4d_ns.device.kernels import ceil_div, launch
from consistent4d_ns.field.types import HeadValues, HeadWeights


@dataclass(frozen=True)
class LaunchConfig:
    """Launch parameters of the kernels; they affect speed only."""

    forward_block: int = 64
    """Samples per program of the forward pass."""
    forward_warps: int = 4
    """Warps per program of the forward pass."""
    backward_block: int = 32
    """Samples that a program of the backward pass takes at a time."""
    backward_warps: int = 4
    """Warps per program of the backward pass."""
    backward_programs: int = 792
    """Most programs of the backward pass; each writes gradients of all weights."""
    precision: Literal["ieee", "tf32x3"] = "ieee"
    """Precision of float32 products: IEEE, or three TF32 products on tensor cores, nearly as precise."""


LAUNCH = LaunchConfig()


def fused_head_values(
    density: HeadWeights,
    colour: HeadWeights | None,
    features: Float[Tensor, "points channels"],
    jacobian: Float[Tensor, "points 3 channels"] | None,
) -> HeadValues:
    """See `heads.head_values`; `density` and `colour` are the weights of the heads."""
    weights = (*density, *(colour or (None, None)))
    return HeadValues(*_Heads.apply(features, jacobian, *weights))  # pyright: ignore[reportGeneralTypeIssues]


class _Heads(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: Tensor, jacobian: Tensor | None, *weights: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        inputs = tuple(None if tensor is None else tensor.contiguous() for tensor in (features, jacobian, *weights))
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs)
        count, block = len(features), LAUNCH.forward_block
        results = (
            features.new_empty(count),
            None if weights[-1] is None else features.new_empty(count, 3),
            None if jacobian is None else features.new_empty(count, 3),
        )
        _run(_forward, ceil_div(count, block), (*inputs, *results), block, num_warps=LAUNCH.forward_warps)
        return results

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        features, jacobian, first, last, colour_first, colour_last = ctx.saved_tensors
        of_density, of_colour, of_gradient = given = tuple(None if g is None else g.contiguous() for g in gradients)
        block = LAUNCH.backward_block
        programs = min(ceil_div(len(features), block), LAUNCH.backward_programs)

        def partial(weights: Tensor, *through: Tensor | None) -> Tensor | None:
            return None if _none(*through) else features.new_empty(programs, *weights.shape)

        results = (
            None if _none(of_density, of_colour) else torch.empty_like(features),
            None if of_gradient is None else torch.empty_like(jacobian),
            partial(first, of_density, of_gradient),
            partial(colour_first, of_colour),
            partial(colour_last, of_colour),
        )
        # Prefetching (more pipeline stages) would take registers and lower the occupancy.
        options = {"num_warps": LAUNCH.backward_warps, "num_stages": 1}
        _run(_backward, programs, (*ctx.saved_tensors, *given, *results), block, **options)
        shared, *of_colour_weights = (None if part is None else part.sum(dim=0) for part in results[2:])
        of_weights = (None, None) if shared is None else (last.T * shared, (first * shared).sum(dim=1)[None])
        return *results[:2], *of_weights, *of_colour_weights


def _none(*tensors: Tensor | None) -> bool:
    return all(tensor is None for tensor in tensors)


def _run(kernel: Any, programs: int, tensors: tuple[Tensor | None, ...], block: int, **options: int) -> None:
    """Launches a kernel; the tensors start with the inputs of `_Heads.forward`."""
    features, first = cast(Tensor, tensors[0]), cast(Tensor, tensors[2])
    hidden, width = first.shape
    # `tl.dot` needs operands with at least 16 rows and columns.
    lanes, units = (max(16, triton.next_power_of_2(size)) for size in (width, hidden))
    sizes = (len(features), width, hidden, lanes, units, block)
    launch(kernel, (programs,), features, *tensors[1:], *sizes, LAUNCH.precision, **options)


@triton.jit
def _load_matrix(weights, row, column, rows: tl.constexpr, columns: tl.constexpr):
    """A [rows, columns] matrix, padded with zeros."""
    mask = (row[:, None] < rows) & (column[None, :] < columns)
    return tl.load(weights + row[:, None] * columns + column[None, :], mask=mask, other=0.0)


@triton.jit
def _load_row(weights, row, column, columns: tl.constexpr):
    """One row of a matrix as [1, columns], padded with zeros."""
    return tl.load(weights + row * columns + column, mask=column < columns, other=0.0)[None, :]


@triton.jit(do_not_specialize=["count"])
def _forward(
    features, jacobian, density_first, density_last, colour_first, colour_last, density, colour, gradient, count,
    width: tl.constexpr, hidden: tl.constexpr, lanes: tl.constexpr, units: tl.constexpr, block: tl.constexpr,
    precision: tl.constexpr,
):  # fmt: skip
    """Writes what the heads return for a block of samples.

    Args:
        features: [count, width] float32.
        jacobian: [count, 3, width] float32; None without `gradient`.
        density_first: [hidden, width] float32.
        density_last: [1, hidden] float32.
        colour_first: [hidden, width] float32; None without `colour`.
        colour_last: [3, hidden] float32; None without `colour`.
        density: [count] float32, a result.
        colour: [count, 3] float32, a result, or None.
        gradient: [count, 3] float32, a result, or None.
        count: Samples.
        width: Channels.
        hidden: Hidden units.
        lanes, units: `width` and `hidden` rounded up to powers of two, 16 at least.
        block: Samples per program.
        precision: See `LaunchConfig`.
    """
    # 64-bit indices: the results may have more than 2^31 elements.
    sample = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    lane = tl.arange(0, lanes)
    unit = tl.arange(0, units)
    inside = sample < count
    mask = inside[:, None] & (lane[None, :] < width)
    x = tl.load(features + sample[:, None] * width + lane[None, :], mask=mask, other=0.0)
    first = _load_matrix(density_first, unit, lane, hidden, width)
    last = _load_row(density_last, 0, unit, hidden)
    preactivation = tl.dot(x, tl.trans(first), input_precision=precision)
    tl.store(density + sample, tl.sum(tl.maximum(preactivation, 0.0) * last, axis=1), mask=inside)
    if gradient is not None:
        slope = tl.dot(tl.where(preactivation > 0.0, last, 0.0), first, input_precision=precision)
        for axis in tl.static_range(3):
            entry = (3 * sample + axis)[:, None] * width + lane[None, :]
            derivative = tl.load(jacobian + entry, mask=mask, other=0.0)
            tl.store(gradient + 3 * sample + axis, tl.sum(derivative * slope, axis=1), mask=inside)
    if colour is not None:
        first = _load_matrix(colour_first, unit, lane, hidden, width)
        activation = tl.maximum(tl.dot(x, tl.trans(first), input_precision=precision), 0.0)
        for output in tl.static_range(3):
            value = tl.sum(activation * _load_row(colour_last, output, unit, hidden), axis=1)
            tl.store(colour + 3 * sample + output, value, mask=inside)


@triton.jit
def _density_backward(
    x, jacobian, first, last, of_density, of_gradient, of_jacobian, sample, lane, inside, mask, of_x, product,
    width: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """Backward pass of the density and of its derivatives for one block of samples (see `_backward`).

    Writes the gradient of the Jacobian. Returns `of_x`, the gradient of the features, and `product`, M, with what this
    block adds to them.
    """
    preactivation = tl.dot(x, tl.trans(first), input_precision=precision)
    slope = tl.dot(tl.where(preactivation > 0.0, last, 0.0), first, input_precision=precision)
    v = tl.zeros(mask.shape, dtype=tl.float32)
    if of_density is not None:
        f = tl.load(of_density + sample, mask=inside, other=0.0)[:, None]
        of_x += f * slope
        v += f * x
    if of_gradient is not None:
        for axis in tl.static_range(3):
            entry = (3 * sample + axis)[:, None] * width + lane[None, :]
            g = tl.load(of_gradient + 3 * sample + axis, mask=inside, other=0.0)[:, None]
            v += g * tl.load(jacobian + entry, mask=mask, other=0.0)
            tl.store(of_jacobian + entry, g * slope, mask=mask)
    active = tl.where(preactivation > 0.0, 1.0, 0.0)
    return of_x, tl.dot(tl.trans(active), v, acc=product, input_precision=precision)


@triton.jit
def _colour_backward(
    x, to_colour, red, green, blue, of_colour, sample, inside, of_x, of_to_colour, of_red, of_green, of_blue,
    precision: tl.constexpr,
):  # fmt: skip
    """Backward pass of the colour for one block of samples (see `_backward`).

    `to_colour` are the weights to the hidden layer; `red`, `green` and `blue` are the rows of those from it. Returns
    the gradients of the features and of these weights with what this block adds to them.
    """
    preactivation = tl.dot(x, tl.trans(to_colour), input_precision=precision)
    activation = tl.maximum(preactivation, 0.0)
    r = tl.load(of_colour + 3 * sample, mask=inside, other=0.0)[:, None]
    g = tl.load(of_colour + 3 * sample + 1, mask=inside, other=0.0)[:, None]
    b = tl.load(of_colour + 3 * sample + 2, mask=inside, other=0.0)[:, None]
    of_red += r * activation
    of_green += g * activation
    of_blue += b * activation
    of_preactivation = tl.where(preactivation > 0.0, r * red + g * green + b * blue, 0.0)
    of_x += tl.dot(of_preactivation, to_colour, input_precision=precision)
    of_to_colour = tl.dot(tl.trans(of_preactivation), x, acc=of_to_colour, input_precision=precision)
    return of_x, of_to_colour, of_red, of_green, of_blue


@triton.jit(do_not_specialize=["count"])
def _backward(
    features, jacobian, density_first, density_last, colour_first, colour_last, of_density, of_colour, of_gradient,
    of_features, of_jacobian, of_density_weights, of_colour_first, of_colour_last, count,
    width: tl.constexpr, hidden: tl.constexpr, lanes: tl.constexpr, units: tl.constexpr, block: tl.constexpr,
    precision: tl.constexpr,
):  # fmt: skip
    """Writes gradients of features and Jacobian, and per program its samples' share in those of the weights.

    For one sample let A be the diagonal matrix of the density's active hidden units (1 or 0), f the gradient of the
    density, g that of its derivatives along x, y, z, and

        v = f features + g . Jacobian.

    Density and derivatives are last A first features and last A first Jacobian, so the loss sees the weights through
    last A first v. Where A jumps there is no derivative, elsewhere it is constant. With M = sum of A 1 v^T over all
    samples, [hidden, width], the gradients are last^T * M (entry by entry) for `first`, and first * M summed over
    channels for `last`. Only M needs a pass over the samples.

    Args:
        features, jacobian, density_first, density_last, colour_first, colour_last: As for `_forward`.
        of_density, of_colour, of_gradient: Gradients of its results, or None.
        of_features: [count, width] float32, a result, or None where neither density nor colour have a gradient.
        of_jacobian: [count, 3, width] float32, a result, or None without `of_gradient`.
        of_density_weights: [programs, hidden, width] float32, M, or None where only colour has a gradient.
        of_colour_first: [programs, hidden, width] float32, a result, or None without `of_colour`.
        of_colour_last: [programs, 3, hidden] float32, a result, or None without `of_colour`.
        count, width, hidden, lanes, units, precision: As for `_forward`.
        block: Samples that a program takes at a time.
    """
    program = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, lanes)
    unit = tl.arange(0, units)
    if of_density_weights is not None:
        first = _load_matrix(density_first, unit, lane, hidden, width)
        last = _load_row(density_last, 0, unit, hidden)
    if of_colour is not None:
        to_colour = _load_matrix(colour_first, unit, lane, hidden, width)
        red = _load_row(colour_last, 0, unit, hidden)
        green = _load_row(colour_last, 1, unit, hidden)
        blue = _load_row(colour_last, 2, unit, hidden)
    product = tl.zeros((units, lanes), dtype=tl.float32)
    of_to_colour = tl.zeros((units, lanes), dtype=tl.float32)
    # Accumulated per sample of a block and reduced once at the end: reductions make threads exchange values.
    of_red = tl.zeros((block, units), dtype=tl.float32)
    of_green = tl.zeros((block, units), dtype=tl.float32)
    of_blue = tl.zeros((block, units), dtype=tl.float32)
    for start in range(program * block, count, tl.num_programs(0) * block):
        sample = start + tl.arange(0, block)
        inside = sample < count
        mask = inside[:, None] & (lane[None, :] < width)
        entry = sample[:, None] * width + lane[None, :]
        x = tl.load(features + entry, mask=mask, other=0.0)
        of_x = tl.zeros((block, lanes), dtype=tl.float32)
        if of_density_weights is not None:
            of_x, product = _density_backward(
                x, jacobian, first, last, of_density, of_gradient, of_jacobian, sample, lane, inside, mask, of_x,
                product, width, precision,
            )  # fmt: skip
        if of_colour is not None:
            of_x, of_to_colour, of_red, of_green, of_blue = _colour_backward(
                x, to_colour, red, green, blue, of_colour, sample, inside, of_x, of_to_colour, of_red, of_green,
                of_blue, precision,
            )  # fmt: skip
        if of_features is not None:
            tl.store(of_features + entry, of_x, mask=mask)
    entry = (program * hidden + unit[:, None]) * width + lane[None, :]
    mask = (unit[:, None] < hidden) & (lane[None, :] < width)
    if of_density_weights is not None:
        tl.store(of_density_weights + entry, product, mask=mask)
    if of_colour is not None:
        tl.store(of_colour_first + entry, of_to_colour, mask=mask)
        row = of_colour_last + program * 3 * hidden + unit
        tl.store(row, tl.sum(of_red, axis=0), mask=unit < hidden)
        tl.store(row + hidden, tl.sum(of_green, axis=0), mask=unit < hidden)
        tl.store(row + 2 * hidden, tl.sum(of_blue, axis=0), mask=unit < hidden)
