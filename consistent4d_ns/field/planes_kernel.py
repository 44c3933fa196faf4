"""The query of a K-planes level as Triton kernels: all planes at once, values, spatial derivatives and gradients.

The planes of a level are packed into one array of grid values, [values, channels], so that the channels of a grid point
are contiguous: first xy, xz, yz, then xt, yt, zt, which a level without time lacks. The backward pass looks the corners
up again instead of storing them.

Names that begin with `grad_` are gradients of the loss.
"""

# Called from Python, a `triton.jit` function never returns; called from another it does, which pyright does not know.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Shaped
from torch import Tensor

from consistent4d_ns.device.kernels import ceil_div, launch
from consistent4d_ns.field.types import TIME_AXIS, PlaneReduction, Planes, axes_of, resolution_of


@dataclass(frozen=True)
class LaunchConfig:
    """Launch parameters of the kernels; they affect speed only."""

    forward_block: int = 64
    """Samples per program of the forward pass."""
    forward_warps: int = 8
    """Warps per program of the forward pass."""
    backward_block: int = 16
    """Samples per program of the backward pass."""
    backward_warps: int = 2
    """Warps per program of the backward pass."""
    space_copies: int = 16
    """Copies of the gradients of xy, xz and yz over which programs are spread, to reduce contention of atomic adds."""
    time_copies: int = 128
    """The same for xt, yt and zt, of which all samples of an image use the same two rows."""
    copies_bytes: int = 1 << 25
    """Maximum memory for the copies of either kind: large planes have fewer copies, but at least one."""

    def copies(self, space: int, time: int, row_bytes: int) -> tuple[int, int]:
        """Number of copies for `space` and for `time` grid values, all channels of which take `row_bytes`."""
        fit = self.copies_bytes // row_bytes
        return max(1, min(self.space_copies, fit // space)), max(1, min(self.time_copies, fit // max(1, time)))


LAUNCH = LaunchConfig()
FRACTION_BITS = 34
"""Bits after the point of sums in fixed point, whose unit is the largest summand; see `_fixed_point_scale`."""


def fused_features(
    planes: Planes, coordinates: Float[Tensor, "points 4"], reduction: PlaneReduction
) -> Float[Tensor, "points channels"]:
    """See `planes.plane_features`; no gradient for the coordinates."""
    return _query(planes, coordinates, reduction, with_jacobian=False)


def fused_features_and_jacobian(
    planes: Planes, coordinates: Float[Tensor, "points 4"], reduction: PlaneReduction
) -> tuple[Float[Tensor, "points channels"], Float[Tensor, "points 3 channels"]]:
    """See `planes.plane_features_and_jacobian`; no gradient for the coordinates."""
    return _query(planes, coordinates, reduction, with_jacobian=True)


def _query(planes: Planes, coordinates: Tensor, reduction: PlaneReduction, with_jacobian: bool) -> Any:
    return _Query.apply(
        _packed(planes), coordinates.contiguous(), resolution_of(planes), reduction == "product", with_jacobian
    )


def _packed(planes: Planes) -> Float[Tensor, "values channels"]:
    """Grid values of xy, xz, yz, xt, yt, zt, in this order."""
    in_order = sorted(zip(axes_of(planes), planes, strict=True), key=lambda pair: TIME_AXIS in pair[0])
    return torch.cat([plane[0].permute(1, 2, 0).flatten(0, 1) for _, plane in in_order])


class _Query(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        packed: Float[Tensor, "values channels"],
        coordinates: Float[Tensor, "points 4"],
        resolution: tuple[int, int, int, int],
        product: bool,
        with_jacobian: bool,
    ) -> Any:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(packed, coordinates)
        ctx.resolution, ctx.product = resolution, product
        count, width = len(coordinates), packed.shape[1]
        features = packed.new_empty(count, width)
        jacobian = packed.new_empty((count, 3, width) if with_jacobian else 0)
        _launch(
            plane_forward,
            LAUNCH.forward_block,
            (packed, coordinates, features, jacobian),
            resolution,
            product=product,
            with_jacobian=with_jacobian,
            num_warps=LAUNCH.forward_warps,
        )
        return (features, jacobian) if with_jacobian else features

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        packed, coordinates = ctx.saved_tensors
        grad_features, grad_jacobian = (*gradients, None)[:2]
        if grad_features is None and grad_jacobian is None:
            return None, None, None, None, None
        gradient = _gradient(packed, coordinates, grad_features, grad_jacobian, ctx.resolution, ctx.product)
        return gradient, None, None, None, None


def _gradient(
    packed: Float[Tensor, "values channels"],
    coordinates: Float[Tensor, "points 4"],
    grad_features: Float[Tensor, "points channels"] | None,
    grad_jacobian: Float[Tensor, "points 3 channels"] | None,
    resolution: Sequence[int],
    product: bool,
) -> Float[Tensor, "values channels"]:
    """Gradient of the packed planes; at least one of `grad_features` and `grad_jacobian` is given.

    Many programs add to the same value. In float32 the result depends on their order, which is another one each time;
    where torch is asked for deterministic algorithms, they add whole numbers, which takes two passes.
    """
    # The kernel does not read a gradient that is not given; any tensor may stand in for it.
    gradients = [packed if gradient is None else gradient.contiguous() for gradient in (grad_features, grad_jacobian)]

    def run(sums: Tensor, copies: tuple[int, int], scale: Tensor | None = None) -> None:
        _launch(
            plane_backward,
            LAUNCH.backward_block,
            (packed, coordinates, *gradients, sums, scale),
            resolution,
            product=product,
            from_features=grad_features is not None,
            from_jacobian=grad_jacobian is not None,
            space_copies=copies[0],
            time_copies=copies[1],
            num_warps=LAUNCH.backward_warps,
        )

    if not torch.are_deterministic_algorithms_enabled():
        return _sum_over_copies(run, packed, resolution, torch.float32)
    largest = packed.new_zeros(1, dtype=torch.int32)
    run(largest, (1, 1))
    largest = largest.view(torch.float32)
    scale = _fixed_point_scale(largest, len(coordinates))
    total = _sum_over_copies(partial(run, scale=scale), packed, resolution, torch.int64)
    return torch.where(largest.isfinite(), total.double() / scale, torch.nan).float()


def _sum_over_copies(
    run: Callable[[Tensor, tuple[int, int]], None],
    packed: Float[Tensor, "values channels"],
    resolution: Sequence[int],
    dtype: torch.dtype,
) -> Shaped[Tensor, "values channels"]:
    """Sums for all planes, of what `run` adds to zeros of a type, given how many copies there are."""
    nx, ny, nz, _ = resolution
    width = packed.shape[1]
    space = nx * ny + nx * nz + ny * nz
    time = len(packed) - space
    copies = LAUNCH.copies(space, time, dtype.itemsize * width)
    sizes = copies[0] * space, copies[1] * time
    sums = packed.new_zeros(sum(sizes), width, dtype=dtype)
    run(sums, copies)
    parts = (part.view(count, -1, width) for part, count in zip(sums.split(sizes), copies, strict=True))
    return torch.cat([part.sum(dim=0) for part in parts])


def _fixed_point_scale(largest: Float[Tensor, "1"], count: int) -> Float[Tensor, "1"]:
    """Power of two by which summands are multiplied before they are cut to whole numbers of 64 bits.

    Each sample adds to four corners of a plane, which may be the same one, so 4 `count` times the largest summand must
    fit. Below 2^26 samples the scale does not depend on `count`, which padding changes.
    """
    bits = min(FRACTION_BITS, 62 - (4 * count).bit_length())
    _, exponent = torch.frexp(largest)
    return torch.ldexp(torch.ones_like(largest), (bits - exponent).clamp(-120, 120))


def _launch(kernel: Any, block: int, tensors: Sequence[Any], resolution: Sequence[int], **options: Any) -> None:
    """Launch a kernel with one program per `block` samples.

    Args:
        kernel: `plane_forward` or `plane_backward`.
        block: Samples per program.
        tensors: The kernel's tensors: packed planes, coordinates, and its own, of which some may be None.
        resolution: Grid size along x, y, z, t.
        options: Its other arguments by name, and launch options.
    """
    packed, coordinates = tensors[:2]
    count, width = len(coordinates), packed.shape[1]
    sizes = {"timed": resolution[TIME_AXIS] > 0, "width": width, "lanes": triton.next_power_of_2(width), "block": block}
    launch(kernel, (ceil_div(count, block),), packed, *tensors[1:], count, *resolution, **sizes, **options)


@triton.jit
def locate(coordinates, sample, inside, axis: tl.constexpr, size):
    """Grid cells of the samples along one axis.

    Returns the indices of the grid lines before and after each sample, [block]; its fractional position between them,
    [block, 1]; and the derivative of its position with respect to the coordinate, [block, 1], which is 0 outside the
    box.
    """
    coordinate = tl.load(coordinates + sample * 4 + axis, mask=inside, other=0.0)
    position = (coordinate + 1.0) / 2.0 * (size - 1)
    position = tl.minimum(tl.maximum(position, 0.0), (size - 1) * 1.0)
    before = tl.maximum(tl.minimum(position.to(tl.int32), size - 2), 0)
    after = tl.minimum(before + 1, size - 1)
    slope = tl.where(tl.abs(coordinate) <= 1.0, 0.5 * (size - 1), 0.0)
    return before, after, (position - before)[:, None], slope[:, None]


@triton.jit
def locate_samples(coordinates, sample, inside, nx, ny, nz, nt):
    """`locate` along x, y, z and t."""
    x = locate(coordinates, sample, inside, 0, nx)
    y = locate(coordinates, sample, inside, 1, ny)
    z = locate(coordinates, sample, inside, 2, nz)
    t = locate(coordinates, sample, inside, 3, nt)
    return x, y, z, t


@triton.jit
def space_offsets(nx, ny, nz, width: tl.constexpr):
    """Offsets of xz and yz in the packed spatial planes, which begin with xy, and the size of all three."""
    xz = nx * ny * width
    yz = xz + nx * nz * width
    return xz, yz, yz + ny * nz * width


@triton.jit
def time_offsets(nx, ny, nz, nt, width: tl.constexpr):
    """Offsets of yt and zt in the packed time planes, which begin with xt, and the size of all three."""
    yt = nx * nt * width
    zt = yt + ny * nt * width
    return yt, zt, zt + nz * nt * width


@triton.jit
def corner_offsets(columns, column, row, width: tl.constexpr, lane):
    """Offsets of the four corners in a plane: top left, top right, bottom left, bottom right, [block, lanes]."""
    left, right, _, _ = column
    top, bottom, _, _ = row
    return (
        ((top * columns + left) * width)[:, None] + lane,
        ((top * columns + right) * width)[:, None] + lane,
        ((bottom * columns + left) * width)[:, None] + lane,
        ((bottom * columns + right) * width)[:, None] + lane,
    )


@triton.jit
def interpolate(plane, columns, column, row, width: tl.constexpr, lane, mask):
    """Bilinearly interpolated values of a plane and their derivatives along its two axes, columns then rows.

    All three are [block, lanes].

    Args:
        plane: [rows, columns, width] float32.
        columns: Number of columns.
        column, row: Grid cells of the samples along these two axes (see `locate`).
        width: Channels.
        lane: Indices of the channels, [1, lanes].
        mask: Which entries of [block, lanes] exist.
    """
    _, _, across, across_slope = column
    _, _, down, down_slope = row
    corners = corner_offsets(columns, column, row, width, lane)
    top_left = tl.load(plane + corners[0], mask=mask, other=0.0)
    top_right = tl.load(plane + corners[1], mask=mask, other=0.0)
    bottom_left = tl.load(plane + corners[2], mask=mask, other=0.0)
    bottom_right = tl.load(plane + corners[3], mask=mask, other=0.0)
    top_difference = top_right - top_left
    bottom_difference = bottom_right - bottom_left
    top = top_left + across * top_difference
    bottom = bottom_left + across * bottom_difference
    across_derivative = across_slope * (top_difference + down * (bottom_difference - top_difference))
    return top + down * (bottom - top), across_derivative, down_slope * (bottom - top)


@triton.jit
def interpolate_planes(packed, x, y, z, t, nx, ny, nz, nt, timed: tl.constexpr, width: tl.constexpr, lane, mask):
    """`interpolate` for the planes xy, xz, yz, xt, yt and zt; without planes over time, their values are 1."""
    xz, yz, space_size = space_offsets(nx, ny, nz, width)
    nothing = tl.zeros(mask.shape, dtype=tl.float32)
    of_xt = nothing + 1.0, nothing, nothing
    of_yt = of_xt
    of_zt = of_xt
    if timed:
        yt, zt, _ = time_offsets(nx, ny, nz, nt, width)
        time_planes = packed + space_size
        of_xt = interpolate(time_planes, nx, x, t, width, lane, mask)
        of_yt = interpolate(time_planes + yt, ny, y, t, width, lane, mask)
        of_zt = interpolate(time_planes + zt, nz, z, t, width, lane, mask)
    return (
        interpolate(packed, nx, x, y, width, lane, mask),
        interpolate(packed + xz, nx, x, z, width, lane, mask),
        interpolate(packed + yz, ny, y, z, width, lane, mask),
        of_xt,
        of_yt,
        of_zt,
    )


@triton.jit
def add(sums, offset, value, mask, scale):
    """Add to sums of floats in any order or, with a scale, to sums of whole numbers."""
    # Relaxed ordering suffices: nothing reads the sums before the kernel has ended.
    if scale is None:
        tl.atomic_add(sums + offset, value, mask=mask, sem="relaxed")
    else:
        tl.atomic_add(sums + offset, (value * tl.load(scale)).to(tl.int64), mask=mask, sem="relaxed")


@triton.jit
def note_largest(largest, a, b, c, d, mask):
    """Raise `largest`, the bits of a float, to the largest absolute value; of all floats NaN has the highest bits."""
    bits_a = tl.abs(a).to(tl.int32, bitcast=True)
    bits_b = tl.abs(b).to(tl.int32, bitcast=True)
    bits_c = tl.abs(c).to(tl.int32, bitcast=True)
    bits_d = tl.abs(d).to(tl.int32, bitcast=True)
    bits = tl.maximum(tl.maximum(bits_a, bits_b), tl.maximum(bits_c, bits_d))
    tl.atomic_max(largest, tl.max(tl.max(tl.where(mask, bits, 0), axis=1), axis=0), sem="relaxed")


@triton.jit
def add_to_corners(
    sums, start, scale, columns, column, row, value, across_derivative, down_derivative, width: tl.constexpr, lane, mask
):
    """The transpose of `interpolate`: accumulates the gradients of the corners, given those of its results.

    Args:
        sums: As `plane_backward`'s.
        start: Where the gradients of the plane, [rows, columns, width], begin there.
        scale: As `plane_backward`'s.
        value, across_derivative, down_derivative: Gradients of what `interpolate` returns.
        columns, column, row, width, lane, mask: As for `interpolate`.
    """
    _, _, across, across_slope = column
    _, _, down, down_slope = row
    corners = corner_offsets(columns, column, row, width, lane)
    steeper = across_slope * across_derivative
    left = (1.0 - across) * value - steeper
    right = across * value + steeper
    lower = down_slope * down_derivative
    lower_left = (1.0 - across) * lower
    lower_right = across * lower
    top_left = (1.0 - down) * left - lower_left
    top_right = (1.0 - down) * right - lower_right
    bottom_left = down * left + lower_left
    bottom_right = down * right + lower_right
    if sums.dtype.element_ty == tl.int32:
        note_largest(sums, top_left, top_right, bottom_left, bottom_right, mask)
    else:
        add(sums, start + corners[0], top_left, mask, scale)
        add(sums, start + corners[1], top_right, mask, scale)
        add(sums, start + corners[2], bottom_left, mask, scale)
        add(sums, start + corners[3], bottom_right, mask, scale)


@triton.jit(do_not_specialize=["count", "nx", "ny", "nz", "nt"])
def plane_forward(
    packed, coordinates, features, jacobian, count, nx, ny, nz, nt, timed: tl.constexpr,
    width: tl.constexpr, lanes: tl.constexpr, block: tl.constexpr, product: tl.constexpr, with_jacobian: tl.constexpr,
):  # fmt: skip
    """Write the features of a block of samples, and their derivatives along x, y, z.

    Args:
        packed: [values, width] float32, the planes (see `_packed`).
        coordinates: [count, 4] float32.
        features: [count, width] float32, output.
        jacobian: [count, 3, width] float32, output; not written unless `with_jacobian`.
        count: Number of samples.
        nx, ny, nz, nt: Resolution.
        timed: Whether there are planes over time.
        width: Channels.
        lanes: `width` rounded up to a power of two.
        block: Samples per program.
        product: Whether all planes are multiplied.
        with_jacobian: Whether to compute derivatives.
    """
    # 64-bit indices: the outputs may have more than 2^31 elements. Planes are smaller.
    sample = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    lane = tl.arange(0, lanes)[None, :]
    inside = sample < count
    mask = inside[:, None] & (lane < width)
    x, y, z, t = locate_samples(coordinates, sample, inside, nx, ny, nz, nt)
    planes = interpolate_planes(packed, x, y, z, t, nx, ny, nz, nt, timed, width, lane, mask)
    xy, xy_x, xy_y = planes[0]
    xz, xz_x, xz_z = planes[1]
    yz, yz_y, yz_z = planes[2]
    xt, xt_x, _ = planes[3]
    yt, yt_y, _ = planes[4]
    zt, zt_z, _ = planes[5]
    if product:
        space = xy * xz * yz
        space_x = (xy_x * xz + xy * xz_x) * yz
        space_y = (xy_y * yz + xy * yz_y) * xz
        space_z = (xz_z * yz + xz * yz_z) * xy
    else:
        space = xy + xz + yz
        space_x = xy_x + xz_x
        space_y = xy_y + yz_y
        space_z = xz_z + yz_z
    entry = sample[:, None] * width + lane
    tl.store(features + entry, space * xt * yt * zt, mask=mask)
    if with_jacobian:
        entry = sample[:, None] * (3 * width) + lane
        tl.store(jacobian + entry, (space_x * xt + space * xt_x) * yt * zt, mask=mask)
        tl.store(jacobian + entry + width, (space_y * yt + space * yt_y) * xt * zt, mask=mask)
        tl.store(jacobian + entry + 2 * width, (space_z * zt + space * zt_z) * xt * yt, mask=mask)


@triton.jit
def dual_product(first, second):
    """Product of two dual numbers (v, s), which stand for v + s e with e e = 0."""
    first_value, first_tangent = first
    second_value, second_tangent = second
    return first_value * second_value, first_value * second_tangent + first_tangent * second_value


@triton.jit
def cofactor(first, second, time, product: tl.constexpr):
    """Cofactor of a spatial plane: `time`, the product of the time planes, times the two other spatial planes if all
    six planes are multiplied."""
    factor = time
    if product:
        factor = dual_product(dual_product(first, second), time)
    return factor


@triton.jit
def load_gradients(
    grad_features, grad_jacobian, sample, width: tl.constexpr, lane, mask,
    from_features: tl.constexpr, from_jacobian: tl.constexpr,
):  # fmt: skip
    """Gradients of the features and of their derivatives along x, y, z, [block, lanes]; 0 if they are not given."""
    zero = tl.zeros(mask.shape, dtype=tl.float32)
    f = zero
    if from_features:
        f = tl.load(grad_features + sample[:, None] * width + lane, mask=mask, other=0.0)
    gx = zero
    gy = zero
    gz = zero
    if from_jacobian:
        entry = sample[:, None] * (3 * width) + lane
        gx = tl.load(grad_jacobian + entry, mask=mask, other=0.0)
        gy = tl.load(grad_jacobian + entry + width, mask=mask, other=0.0)
        gz = tl.load(grad_jacobian + entry + 2 * width, mask=mask, other=0.0)
    return f, gx, gy, gz


@triton.jit
def plane_duals(planes, gx, gy, gz):
    """Values of xy, xz, yz, xt, yt, zt as dual numbers, whose tangents are the derivatives along (gx, gy, gz)."""
    xy, xy_x, xy_y = planes[0]
    xz, xz_x, xz_z = planes[1]
    yz, yz_y, yz_z = planes[2]
    xt, xt_x, _ = planes[3]
    yt, yt_y, _ = planes[4]
    zt, zt_z, _ = planes[5]
    return (
        (xy, gx * xy_x + gy * xy_y),
        (xz, gx * xz_x + gz * xz_z),
        (yz, gy * yz_y + gz * yz_z),
        (xt, gx * xt_x),
        (yt, gy * yt_y),
        (zt, gz * zt_z),
    )


@triton.jit(do_not_specialize=["count", "nx", "ny", "nz", "nt"])
def plane_backward(
    packed, coordinates, grad_features, grad_jacobian, sums, scale, count, nx, ny, nz, nt, timed: tl.constexpr,
    width: tl.constexpr, lanes: tl.constexpr, block: tl.constexpr, product: tl.constexpr,
    from_features: tl.constexpr, from_jacobian: tl.constexpr, space_copies: tl.constexpr, time_copies: tl.constexpr,
):  # fmt: skip
    """Add the gradients of a block of samples to one of the copies of the planes' gradients.

    For one sample and channel, let F(v_1, ..., v_6) be the feature as a function of the six planes' values, J its
    derivatives along x, y, z, and f and g = (g_x, g_y, g_z) the gradients of the loss with respect to F and J. The loss
    depends on the planes through f F + g . J, and g . J is the derivative of F along the direction g. Dual numbers
    compute it: with v_i + s_i e in place of v_i, where s_i = g . grad v_i and e e = 0, F becomes F + (g . J) e.

    F is linear in every v_i, so F = v_i E_i + terms without v_i, where the cofactor E_i is the product of the other
    planes (for a spatial plane in the hybrid reduction, of the time planes alone). In dual numbers it is E_i + T_i e,
    so f F + g . J depends on plane i through f v_i E_i + v_i T_i + s_i E_i. Hence the gradient with respect to v_i is
    f E_i + T_i, and that with respect to its derivative along an axis a is g_a E_i.

    All samples of an image have the same time, hence use the same two rows of xt, yt and zt. If all programs added to
    these, they would spend most of their time waiting for each other. Therefore programs are spread over copies of the
    gradients (see `LaunchConfig`).

    Args:
        packed, coordinates, count, nx, ny, nz, nt, timed, width, lanes, block, product: As for `plane_forward`.
        grad_features: [count, width] float32, gradients of the features.
        grad_jacobian: [count, 3, width] float32, gradients of the Jacobian.
        sums: [space_copies * values of xy, xz, yz + time_copies * values of xt, yt, zt, width], output: gradients as
            float32, or as int64 in units of 1 / scale. Or [1] int32, output: the largest summand, as a float's bits.
        scale: [1] float32; None unless `sums` are int64.
        from_features, from_jacobian: Whether these gradients are given.
        space_copies, time_copies: See `LaunchConfig.copies`.
    """
    program = tl.program_id(0)
    sample = program.to(tl.int64) * block + tl.arange(0, block)
    lane = tl.arange(0, lanes)[None, :]
    inside = sample < count
    mask = inside[:, None] & (lane < width)
    x, y, z, t = locate_samples(coordinates, sample, inside, nx, ny, nz, nt)
    f, gx, gy, gz = load_gradients(
        grad_features, grad_jacobian, sample, width, lane, mask, from_features, from_jacobian
    )
    planes = interpolate_planes(packed, x, y, z, t, nx, ny, nz, nt, timed, width, lane, mask)
    # Padding and hidden samples have no gradient: all at one point, they would wait for each other to add 0.
    mask = mask & ((f != 0.0) | (gx != 0.0) | (gy != 0.0) | (gz != 0.0))
    xy, xz, yz, xt, yt, zt = plane_duals(planes, gx, gy, gz)
    time = dual_product(dual_product(xt, yt), zt)
    space = xy[0] + xz[0] + yz[0], xy[1] + xz[1] + yz[1]
    if product:
        space = dual_product(dual_product(xy, xz), yz)

    # The cofactor of a plane, then its gradients, one plane after the other: all six at once need more registers.
    xz_start, yz_start, space_size = space_offsets(nx, ny, nz, width)
    start = (program % space_copies) * space_size
    e, tangent = cofactor(xz, yz, time, product)
    add_to_corners(sums, start, scale, nx, x, y, f * e + tangent, gx * e, gy * e, width, lane, mask)
    e, tangent = cofactor(xy, yz, time, product)
    add_to_corners(sums, start + xz_start, scale, nx, x, z, f * e + tangent, gx * e, gz * e, width, lane, mask)
    e, tangent = cofactor(xy, xz, time, product)
    add_to_corners(sums, start + yz_start, scale, ny, y, z, f * e + tangent, gy * e, gz * e, width, lane, mask)

    if timed:
        yt_start, zt_start, time_size = time_offsets(nx, ny, nz, nt, width)
        start = space_copies * space_size + (program % time_copies) * time_size
        zero = tl.zeros((block, lanes), dtype=tl.float32)  # nothing is differentiated along t
        e, tangent = dual_product(dual_product(yt, zt), space)
        add_to_corners(sums, start, scale, nx, x, t, f * e + tangent, gx * e, zero, width, lane, mask)
        e, tangent = dual_product(dual_product(xt, zt), space)
        add_to_corners(sums, start + yt_start, scale, ny, y, t, f * e + tangent, gy * e, zero, width, lane, mask)
        e, tangent = dual_product(dual_product(xt, yt), space)
        add_to_corners(sums, start + zt_start, scale, nz, z, t, f * e + tangent, gz * e, zero, width, lane, mask)
