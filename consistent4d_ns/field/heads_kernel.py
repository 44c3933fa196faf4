"""The heads of a K-planes level as a pair of Triton kernels: raw density, raw colour and gradient of the density.

The backward pass recomputes the hidden layers instead of storing them, so that features and Jacobian are read once and
their gradients are written once. Each of its programs loops over blocks and accumulates weight gradients in registers.

Names that begin with `grad_` are gradients of the loss.
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
    """Samples that a program of the backward pass processes at a time."""
    backward_warps: int = 4
    """Warps per program of the backward pass."""
    backward_programs: int = 792
    """Maximum number of programs of the backward pass; each writes partial gradients of all weights."""
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
        inputs = ctx.saved_tensors  # read once, as checkpointing demands
        features, jacobian, first, last, colour_first, colour_last = inputs
        gradients = tuple(None if gradient is None else gradient.contiguous() for gradient in gradients)
        grad_density, grad_colour, grad_gradient = gradients
        block = LAUNCH.backward_block
        programs = LAUNCH.backward_programs
        if not torch.are_deterministic_algorithms_enabled():  # Else padding would change the order of sums.
            programs = min(ceil_div(len(features), block), programs)

        def partial(weights: Tensor, *needed_for: Tensor | None) -> Tensor | None:
            return None if _all_none(*needed_for) else features.new_empty(programs, *weights.shape)

        results = (
            None if _all_none(grad_density, grad_colour) else torch.empty_like(features),
            None if grad_gradient is None else torch.empty_like(jacobian),
            partial(first, grad_density, grad_gradient),
            partial(colour_first, grad_colour),
            partial(colour_last, grad_colour),
        )
        # More pipeline stages (prefetching) would use more registers and lower the occupancy.
        options = {"num_warps": LAUNCH.backward_warps, "num_stages": 1}
        _run(_backward, programs, (*inputs, *gradients, *results), block, **options)
        product, *grad_colour_weights = (None if part is None else part.sum(dim=0) for part in results[2:])
        grad_density_weights = (
            (None, None) if product is None else (last.T * product, (first * product).sum(dim=1)[None])
        )
        return *results[:2], *grad_density_weights, *grad_colour_weights


def _all_none(*tensors: Tensor | None) -> bool:
    return all(tensor is None for tensor in tensors)


def _run(kernel: Any, programs: int, tensors: tuple[Tensor | None, ...], block: int, **options: int) -> None:
    """Launch a kernel; the first six tensors are the inputs of `_Heads.forward`."""
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
    """Write the outputs of the heads for a block of samples.

    Args:
        features: [count, width] float32.
        jacobian: [count, 3, width] float32; may be None if `gradient` is None.
        density_first: [hidden, width] float32.
        density_last: [1, hidden] float32.
        colour_first: [hidden, width] float32; may be None if `colour` is None.
        colour_last: [3, hidden] float32; may be None if `colour` is None.
        density: [count] float32, output.
        colour: [count, 3] float32, output, or None.
        gradient: [count, 3] float32, output: derivatives of the density along x, y, z; or None.
        count: Number of samples.
        width: Channels.
        hidden: Hidden units.
        lanes, units: `width` and `hidden` rounded up to powers of two, at least 16.
        block: Samples per program.
        precision: See `LaunchConfig`.
    """
    # 64-bit indices: the outputs may have more than 2^31 elements.
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
    x, jacobian, first, last, grad_density, grad_gradient, grad_jacobian, sample, lane, inside, mask, grad_x, product,
    width: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """Backward pass of the density and its spatial derivatives for one block of samples (see `_backward`).

    Writes the gradient of the Jacobian. Returns `grad_x`, the gradient of the features, and `product`, the matrix M,
    with the contributions of this block added.
    """
    preactivation = tl.dot(x, tl.trans(first), input_precision=precision)
    slope = tl.dot(tl.where(preactivation > 0.0, last, 0.0), first, input_precision=precision)
    v = tl.zeros(mask.shape, dtype=tl.float32)
    if grad_density is not None:
        f = tl.load(grad_density + sample, mask=inside, other=0.0)[:, None]
        grad_x += f * slope
        v += f * x
    if grad_gradient is not None:
        for axis in tl.static_range(3):
            entry = (3 * sample + axis)[:, None] * width + lane[None, :]
            g = tl.load(grad_gradient + 3 * sample + axis, mask=inside, other=0.0)[:, None]
            v += g * tl.load(jacobian + entry, mask=mask, other=0.0)
            tl.store(grad_jacobian + entry, g * slope, mask=mask)
    active = tl.where(preactivation > 0.0, 1.0, 0.0)
    return grad_x, tl.dot(tl.trans(active), v, acc=product, input_precision=precision)


@triton.jit
def _colour_backward(
    x, to_hidden, red, green, blue, grad_colour, sample, inside, grad_x, grad_to_hidden, grad_red, grad_green,
    grad_blue, precision: tl.constexpr,
):  # fmt: skip
    """Backward pass of the colour for one block of samples (see `_backward`).

    `to_hidden` are the weights of the hidden layer; `red`, `green` and `blue` are the rows of the output layer's
    weights. Returns the gradients of the features and of these weights with the contributions of this block added.
    """
    preactivation = tl.dot(x, tl.trans(to_hidden), input_precision=precision)
    activation = tl.maximum(preactivation, 0.0)
    r = tl.load(grad_colour + 3 * sample, mask=inside, other=0.0)[:, None]
    g = tl.load(grad_colour + 3 * sample + 1, mask=inside, other=0.0)[:, None]
    b = tl.load(grad_colour + 3 * sample + 2, mask=inside, other=0.0)[:, None]
    grad_red += r * activation
    grad_green += g * activation
    grad_blue += b * activation
    grad_preactivation = tl.where(preactivation > 0.0, r * red + g * green + b * blue, 0.0)
    grad_x += tl.dot(grad_preactivation, to_hidden, input_precision=precision)
    grad_to_hidden = tl.dot(tl.trans(grad_preactivation), x, acc=grad_to_hidden, input_precision=precision)
    return grad_x, grad_to_hidden, grad_red, grad_green, grad_blue


@triton.jit(do_not_specialize=["count"])
def _backward(
    features, jacobian, density_first, density_last, colour_first, colour_last, grad_density, grad_colour,
    grad_gradient, grad_features, grad_jacobian, density_product, grad_colour_first, grad_colour_last, count,
    width: tl.constexpr, hidden: tl.constexpr, lanes: tl.constexpr, units: tl.constexpr, block: tl.constexpr,
    precision: tl.constexpr,
):  # fmt: skip
    """Write the gradients of features and Jacobian and, for each program, partial sums for those of the weights.

    For one sample let A be the diagonal matrix of the density head's active hidden units (1 or 0), f the gradient of
    the density, g that of its derivatives along x, y, z, and

        v = f features + g . Jacobian.

    Density and derivatives are last A first features and last A first Jacobian, so the loss depends on the weights
    through last A first v. A is piecewise constant, so it contributes no gradient. With M = sum of A 1 v^T over all
    samples, [hidden, width], the gradients are last^T * M (element-wise) for `first`, and first * M summed over
    channels for `last`. Only M needs a pass over the samples.

    Args:
        features, jacobian, density_first, density_last, colour_first, colour_last: As for `_forward`.
        grad_density, grad_colour, grad_gradient: Gradients of the outputs of `_forward`, or None.
        grad_features: [count, width] float32, output; None if neither density nor colour has a gradient.
        grad_jacobian: [count, 3, width] float32, output; None without `grad_gradient`.
        density_product: [programs, hidden, width] float32, output: M; None if only the colour has a gradient.
        grad_colour_first: [programs, hidden, width] float32, output; None without `grad_colour`.
        grad_colour_last: [programs, 3, hidden] float32, output; None without `grad_colour`.
        count, width, hidden, lanes, units, precision: As for `_forward`.
        block: Samples that a program processes at a time.
    """
    program = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, lanes)
    unit = tl.arange(0, units)
    if density_product is not None:
        first = _load_matrix(density_first, unit, lane, hidden, width)
        last = _load_row(density_last, 0, unit, hidden)
    if grad_colour is not None:
        to_hidden = _load_matrix(colour_first, unit, lane, hidden, width)
        red = _load_row(colour_last, 0, unit, hidden)
        green = _load_row(colour_last, 1, unit, hidden)
        blue = _load_row(colour_last, 2, unit, hidden)
    product = tl.zeros((units, lanes), dtype=tl.float32)
    grad_to_hidden = tl.zeros((units, lanes), dtype=tl.float32)
    # Accumulated per sample of a block and reduced once at the end: reductions make threads communicate.
    grad_red = tl.zeros((block, units), dtype=tl.float32)
    grad_green = tl.zeros((block, units), dtype=tl.float32)
    grad_blue = tl.zeros((block, units), dtype=tl.float32)
    for start in range(program * block, count, tl.num_programs(0) * block):
        sample = start + tl.arange(0, block)
        inside = sample < count
        mask = inside[:, None] & (lane[None, :] < width)
        entry = sample[:, None] * width + lane[None, :]
        x = tl.load(features + entry, mask=mask, other=0.0)
        grad_x = tl.zeros((block, lanes), dtype=tl.float32)
        if density_product is not None:
            grad_x, product = _density_backward(
                x, jacobian, first, last, grad_density, grad_gradient, grad_jacobian, sample, lane, inside, mask,
                grad_x, product, width, precision,
            )  # fmt: skip
        if grad_colour is not None:
            grad_x, grad_to_hidden, grad_red, grad_green, grad_blue = _colour_backward(
                x, to_hidden, red, green, blue, grad_colour, sample, inside, grad_x, grad_to_hidden, grad_red,
                grad_green, grad_blue, precision,
            )  # fmt: skip
        if grad_features is not None:
            tl.store(grad_features + entry, grad_x, mask=mask)
    entry = (program * hidden + unit[:, None]) * width + lane[None, :]
    mask = (unit[:, None] < hidden) & (lane[None, :] < width)
    if density_product is not None:
        tl.store(density_product + entry, product, mask=mask)
    if grad_colour is not None:
        tl.store(grad_colour_first + entry, grad_to_hidden, mask=mask)
        row = grad_colour_last + program * 3 * hidden + unit
        tl.store(row, tl.sum(grad_red, axis=0), mask=unit < hidden)
        tl.store(row + hidden, tl.sum(grad_green, axis=0), mask=unit < hidden)
        tl.store(row + 2 * hidden, tl.sum(grad_blue, axis=0), mask=unit < hidden)
