"""Group normalisation with its activation as Triton kernels, forward and backward to the input, channels last.

Each direction takes three kernels: sums over parts of each image, their reduction per channel, and the output. Arrays
are float32 except for images, which are [images, pixels, channels] of any floating-point type. `offset` [images or 1,
channels] is added to the input first; `offset_stride` is 0 where all images share it. `factors` [images, 2, channels]
normalise: x * factors[0] + factors[1]; weight, bias and, where `silu` is set, SiLU follow.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def sum_moments(
    x, offset, offset_stride, partial, pixels, channels,
    rows: tl.constexpr, block_p: tl.constexpr, block_c: tl.constexpr,
):  # fmt: skip
    """partial[n, t]: sum and sum of squares of each channel over `rows` pixels. Grid: images, parts, channel blocks."""
    n = tl.program_id(0).to(tl.int64)
    c = tl.program_id(2) * block_c + tl.arange(0, block_c)
    inside = c < channels
    added = tl.load(offset + n * offset_stride + c, mask=inside, other=0.0).to(tl.float32)
    total = tl.zeros((block_p, block_c), dtype=tl.float32)
    squares = tl.zeros((block_p, block_c), dtype=tl.float32)
    for step in range(0, rows, block_p):
        p = tl.program_id(1) * rows + step + tl.arange(0, block_p)
        there = (p < pixels)[:, None] & inside[None, :]
        place = n * pixels * channels + p[:, None] * channels + c[None, :]
        value = tl.load(x + place, mask=there, other=0.0).to(tl.float32) + added[None, :]
        value = tl.where(there, value, 0.0)
        total += value
        squares += value * value
    out = partial + (n * tl.num_programs(1) + tl.program_id(1)) * 2 * channels + c
    tl.store(out, tl.sum(total, axis=0), mask=inside)
    tl.store(out + channels, tl.sum(squares, axis=0), mask=inside)


@triton.jit
def add_parts(partial, n, c, inside, parts, channels, block_t: tl.constexpr, block_d: tl.constexpr):
    """Both sums over all parts of channels `c` of image `n`, [block_d] each."""
    first = tl.zeros((block_d,), dtype=tl.float32)
    second = tl.zeros((block_d,), dtype=tl.float32)
    for step in range(0, parts, block_t):
        t = step + tl.arange(0, block_t)
        there = (t < parts)[:, None] & inside[None, :]
        place = partial + (n * parts + t[:, None]) * 2 * channels + c[None, :]
        first += tl.sum(tl.load(place, mask=there, other=0.0), axis=0)
        second += tl.sum(tl.load(place + channels, mask=there, other=0.0), axis=0)
    return first, second


@triton.jit
def before_silu(gradient, value):
    """Gradient of SiLU's input `value`, from that of its output."""
    share = 1.0 / (1.0 + tl.exp(-value))
    return gradient * share * (1.0 + value * (1.0 - share))


@triton.jit
def find_factors(
    partial, offset, offset_stride, factors, parts, pixels, channels, groups, eps,
    block_t: tl.constexpr, block_d: tl.constexpr,
):  # fmt: skip
    """`factors` from the output of `sum_moments`. Grid: images, groups."""
    n = tl.program_id(0).to(tl.int64)
    size = channels // groups
    d = tl.arange(0, block_d)
    c = tl.program_id(1) * size + d
    total, squares = add_parts(partial, n, c, d < size, parts, channels, block_t, block_d)  # pyright: ignore[reportGeneralTypeIssues]
    count = size * pixels
    mean = tl.sum(total, axis=0) / count
    variance = tl.maximum(tl.sum(squares, axis=0) / count - mean * mean, 0.0)
    scale = 1.0 / tl.sqrt(variance + eps)
    added = tl.load(offset + n * offset_stride + c, mask=d < size, other=0.0).to(tl.float32)
    out = factors + n * 2 * channels + c
    tl.store(out, tl.zeros((block_d,), dtype=tl.float32) + scale, mask=d < size)
    tl.store(out + channels, (added - mean) * scale, mask=d < size)


@triton.jit
def normalise(
    x, factors, weight, bias, y, pixels, channels, silu: tl.constexpr, block_p: tl.constexpr, block_c: tl.constexpr
):
    """The layer's output. Grid: images, pixel blocks, channel blocks."""
    n = tl.program_id(0).to(tl.int64)
    p = tl.program_id(1) * block_p + tl.arange(0, block_p)
    c = tl.program_id(2) * block_c + tl.arange(0, block_c)
    inside = c < channels
    there = (p < pixels)[:, None] & inside[None, :]
    place = n * pixels * channels + p[:, None] * channels + c[None, :]
    scale = tl.load(factors + n * 2 * channels + c, mask=inside, other=0.0)
    shift = tl.load(factors + (n * 2 + 1) * channels + c, mask=inside, other=0.0)
    w = tl.load(weight + c, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(bias + c, mask=inside, other=0.0).to(tl.float32)
    value = tl.load(x + place, mask=there, other=0.0).to(tl.float32) * scale[None, :] + shift[None, :]
    value = value * w[None, :] + b[None, :]
    if silu:
        value = value / (1.0 + tl.exp(-value))
    tl.store(y + place, value.to(y.dtype.element_ty), mask=there)


@triton.jit
def sum_products(
    x, upstream, factors, weight, bias, partial, pixels, channels,
    silu: tl.constexpr, rows: tl.constexpr, block_p: tl.constexpr, block_c: tl.constexpr,
):  # fmt: skip
    """partial[n, t]: sums over `rows` pixels of the gradient of the normalised values, and of it times them."""
    n = tl.program_id(0).to(tl.int64)
    c = tl.program_id(2) * block_c + tl.arange(0, block_c)
    inside = c < channels
    scale = tl.load(factors + n * 2 * channels + c, mask=inside, other=0.0)
    shift = tl.load(factors + (n * 2 + 1) * channels + c, mask=inside, other=0.0)
    w = tl.load(weight + c, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(bias + c, mask=inside, other=0.0).to(tl.float32)
    total = tl.zeros((block_p, block_c), dtype=tl.float32)
    products = tl.zeros((block_p, block_c), dtype=tl.float32)
    for step in range(0, rows, block_p):
        p = tl.program_id(1) * rows + step + tl.arange(0, block_p)
        there = (p < pixels)[:, None] & inside[None, :]
        place = n * pixels * channels + p[:, None] * channels + c[None, :]
        normal = tl.load(x + place, mask=there, other=0.0).to(tl.float32) * scale[None, :] + shift[None, :]
        gradient = tl.load(upstream + place, mask=there, other=0.0).to(tl.float32)
        if silu:
            gradient = before_silu(gradient, normal * w[None, :] + b[None, :])
        gradient = gradient * w[None, :]
        total += gradient
        products += gradient * normal
    out = partial + (n * tl.num_programs(1) + tl.program_id(1)) * 2 * channels + c
    tl.store(out, tl.sum(total, axis=0), mask=inside)
    tl.store(out + channels, tl.sum(products, axis=0), mask=inside)


@triton.jit
def find_means(partial, means, parts, pixels, channels, groups, block_t: tl.constexpr, block_d: tl.constexpr):
    """means [images, 2, channels] over each group, from the output of `sum_products`. Grid: images, groups."""
    n = tl.program_id(0).to(tl.int64)
    size = channels // groups
    d = tl.arange(0, block_d)
    c = tl.program_id(1) * size + d
    total, products = add_parts(partial, n, c, d < size, parts, channels, block_t, block_d)  # pyright: ignore[reportGeneralTypeIssues]
    count = size * pixels
    out = means + n * 2 * channels + c
    tl.store(out, tl.zeros((block_d,), dtype=tl.float32) + tl.sum(total, axis=0) / count, mask=d < size)
    tl.store(out + channels, tl.zeros((block_d,), dtype=tl.float32) + tl.sum(products, axis=0) / count, mask=d < size)


@triton.jit
def pull_back(
    x, upstream, factors, weight, bias, means, out, pixels, channels,
    silu: tl.constexpr, block_p: tl.constexpr, block_c: tl.constexpr,
):  # fmt: skip
    """The gradient of the input. Grid: images, pixel blocks, channel blocks."""
    n = tl.program_id(0).to(tl.int64)
    p = tl.program_id(1) * block_p + tl.arange(0, block_p)
    c = tl.program_id(2) * block_c + tl.arange(0, block_c)
    inside = c < channels
    there = (p < pixels)[:, None] & inside[None, :]
    place = n * pixels * channels + p[:, None] * channels + c[None, :]
    scale = tl.load(factors + n * 2 * channels + c, mask=inside, other=0.0)
    shift = tl.load(factors + (n * 2 + 1) * channels + c, mask=inside, other=0.0)
    mean = tl.load(means + n * 2 * channels + c, mask=inside, other=0.0)
    product = tl.load(means + (n * 2 + 1) * channels + c, mask=inside, other=0.0)
    w = tl.load(weight + c, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(bias + c, mask=inside, other=0.0).to(tl.float32)
    normal = tl.load(x + place, mask=there, other=0.0).to(tl.float32) * scale[None, :] + shift[None, :]
    gradient = tl.load(upstream + place, mask=there, other=0.0).to(tl.float32)
    if silu:
        gradient = before_silu(gradient, normal * w[None, :] + b[None, :])
    gradient = (gradient * w[None, :] - mean[None, :] - normal * product[None, :]) * scale[None, :]
    tl.store(out + place, gradient.to(out.dtype.element_ty), mask=there)
