"""The query of a K-planes level as Triton kernels: all six planes at once, values, spatial derivatives and gradients.

The planes of a level are copied into one list of grid values, [values, channels], so that the channels of a corner lie
side by side: first xy, xz, yz, then xt, yt, zt. The backward pass looks the corners up again instead of keeping them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from consistent4d_ns.field.types import AXIS_PAIRS, TIME_AXIS, PlaneReduction, Planes


@dataclass(frozen=True)
class Launch:
    """How the kernels are laid out on the device; changes nothing but the time taken."""

    forward_block: int = 64
    """Samples per program of the forward pass."""
    forward_warps: int = 8
    """Warps per program of the forward pass."""
    backward_block: int = 16
    """Samples per program of the backward pass."""
    backward_warps: int = 2
    """Warps per program of the backward pass."""
    space_copies: int = 16
    """Copies of the gradients of xy, xz and yz among which programs take turns, so that fewer add to one address."""
    time_copies: int = 128
    """The same for xt, yt and zt, of which all samples of an image see the same two rows."""
    copies_bytes: int = 1 << 25
    """What all copies of either kind may take: of large planes there are fewer, but one."""

    def copies(self, space: int, time: int, width: int) -> tuple[int, int]:
        """Copies of `space` and of `time` grid values with `width` channels."""
        fit = self.copies_bytes // (4 * width)
        return max(1, min(self.space_copies, fit // space)), max(1, min(self.time_copies, fit // time))


LAUNCH = Launch()


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
        _packed(planes), coordinates.contiguous(), _resolution(planes), reduction == "product", with_jacobian
    )


def _packed(planes: Planes) -> Float[Tensor, "values channels"]:
    in_order = sorted(zip(AXIS_PAIRS, planes), key=lambda pair: TIME_AXIS in pair[0])
    return torch.cat([plane[0].permute(1, 2, 0).flatten(0, 1) for _, plane in in_order])


def _resolution(planes: Planes) -> tuple[int, int, int, int]:
    """Grid size along x, y, z, t."""
    (ny, nx), (nt, nz) = planes[0].shape[2:], planes[5].shape[2:]
    return nx, ny, nz, nt


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
        block, kernel = LAUNCH.forward_block, cast(Any, look_up)
        with torch.cuda.device_of(packed):
            kernel[(triton.cdiv(count, block),)](
                packed,
                coordinates,
                features,
                jacobian,
                count,
                *resolution,
                width=width,
                lanes=triton.next_power_of_2(width),
                block=block,
                product=product,
                with_jacobian=with_jacobian,
                num_warps=LAUNCH.forward_warps,
            )
        return (features, jacobian) if with_jacobian else features

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        packed, coordinates = ctx.saved_tensors
        of_features, of_jacobian = (*gradients, None)[:2]
        if of_features is None and of_jacobian is None:
            return None, None, None, None, None
        gradient = _gradient(packed, coordinates, of_features, of_jacobian, ctx.resolution, ctx.product)
        return gradient, None, None, None, None


def _gradient(
    packed: Float[Tensor, "values channels"],
    coordinates: Float[Tensor, "points 4"],
    of_features: Float[Tensor, "points channels"] | None,
    of_jacobian: Float[Tensor, "points 3 channels"] | None,
    resolution: Sequence[int],
    product: bool,
) -> Float[Tensor, "values channels"]:
    nx, ny, nz, _ = resolution
    count, width = len(coordinates), packed.shape[1]
    space = nx * ny + nx * nz + ny * nz
    time = len(packed) - space
    launch, kernel = LAUNCH, cast(Any, add_gradients)
    space_copies, time_copies = launch.copies(space, time, width)
    copies = packed.new_zeros(space_copies * space + time_copies * time, width)
    with torch.cuda.device_of(packed):
        kernel[(triton.cdiv(count, launch.backward_block),)](
            packed,
            coordinates,
            packed if of_features is None else of_features.contiguous(),
            packed if of_jacobian is None else of_jacobian.contiguous(),
            copies,
            count,
            *resolution,
            width=width,
            lanes=triton.next_power_of_2(width),
            block=launch.backward_block,
            product=product,
            from_features=of_features is not None,
            from_jacobian=of_jacobian is not None,
            space_copies=space_copies,
            time_copies=time_copies,
            num_warps=launch.backward_warps,
        )
    of_space, of_time = copies.split((space_copies * space, time_copies * time))
    return torch.cat((of_space.view(-1, space, width).sum(dim=0), of_time.view(-1, time, width).sum(dim=0)))


@triton.jit
def locate(coordinates, sample, there, axis: tl.constexpr, size):
    """Grid lines before and after the samples along an axis, their place between these, and lines per unit of length,
    which is 0 outside the box."""
    coordinate = tl.load(coordinates + sample * 4 + axis, mask=there, other=0.0)
    place = (coordinate + 1.0) / 2.0 * (size - 1)
    place = tl.minimum(tl.maximum(place, 0.0), (size - 1) * 1.0)
    before = tl.maximum(tl.minimum(place.to(tl.int32), size - 2), 0)
    after = tl.minimum(before + 1, size - 1)
    slope = tl.where(tl.abs(coordinate) <= 1.0, 0.5 * (size - 1), 0.0)
    return before, after, (place - before)[:, None], slope[:, None]


@triton.jit
def corner_offsets(columns, column, row, width: tl.constexpr, lane):
    """Places of the four corners in a plane: top left, top right, bottom left, bottom right, [block, lanes]."""
    left, right, _, _ = column
    top, bottom, _, _ = row
    return (
        ((top * columns + left) * width)[:, None] + lane,
        ((top * columns + right) * width)[:, None] + lane,
        ((bottom * columns + left) * width)[:, None] + lane,
        ((bottom * columns + right) * width)[:, None] + lane,
    )


@triton.jit
def look(plane, columns, column, row, width: tl.constexpr, lane, there):
    """Values of a plane and their derivatives along its columns' and its rows' axis, [block, lanes]."""
    _, _, across, across_slope = column
    _, _, down, down_slope = row
    corners = corner_offsets(columns, column, row, width, lane)
    top_left = tl.load(plane + corners[0], mask=there, other=0.0)
    top_right = tl.load(plane + corners[1], mask=there, other=0.0)
    bottom_left = tl.load(plane + corners[2], mask=there, other=0.0)
    bottom_right = tl.load(plane + corners[3], mask=there, other=0.0)
    above_difference = top_right - top_left
    below_difference = bottom_right - bottom_left
    above = top_left + across * above_difference
    below = bottom_left + across * below_difference
    across_derivative = across_slope * (above_difference + down * (below_difference - above_difference))
    return above + down * (below - above), across_derivative, down_slope * (below - above)


@triton.jit
def add(plane, columns, column, row, value, across_derivative, down_derivative, width: tl.constexpr, lane, there):
    """Adds to the gradients of the corners those that come from the results of `look`."""
    _, _, across, across_slope = column
    _, _, down, down_slope = row
    corners = corner_offsets(columns, column, row, width, lane)
    steeper = across_slope * across_derivative
    left = (1.0 - across) * value - steeper
    right = across * value + steeper
    lower = down_slope * down_derivative
    lower_left = (1.0 - across) * lower
    lower_right = across * lower
    tl.atomic_add(plane + corners[0], (1.0 - down) * left - lower_left, mask=there, sem="relaxed")
    tl.atomic_add(plane + corners[1], (1.0 - down) * right - lower_right, mask=there, sem="relaxed")
    tl.atomic_add(plane + corners[2], down * left + lower_left, mask=there, sem="relaxed")
    tl.atomic_add(plane + corners[3], down * right + lower_right, mask=there, sem="relaxed")


@triton.jit(do_not_specialize=["count", "nx", "ny", "nz", "nt"])
def look_up(
    packed,
    coordinates,
    features,
    jacobian,
    count,
    nx,
    ny,
    nz,
    nt,
    width: tl.constexpr,
    lanes: tl.constexpr,
    block: tl.constexpr,
    product: tl.constexpr,
    with_jacobian: tl.constexpr,
):
    """Writes the features of a block of samples, and their derivatives along x, y, z.

    Args:
        packed: [values, width] float32.
        coordinates: [count, 4] float32.
        features: [count, width] float32, a result.
        jacobian: [count, 3, width] float32, a result.
        count: Samples.
        nx, ny, nz, nt: Resolution.
        width: Channels.
        lanes: The next power of two.
        block: Samples per program.
        product: Whether all six planes are multiplied.
        with_jacobian: Whether derivatives are wanted.
    """
    sample = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    lane = tl.arange(0, lanes)[None, :]
    within = sample < count
    there = within[:, None] & (lane < width)
    x = locate(coordinates, sample, within, 0, nx)
    y = locate(coordinates, sample, within, 1, ny)
    z = locate(coordinates, sample, within, 2, nz)
    t = locate(coordinates, sample, within, 3, nt)
    xz_plane = packed + nx * ny * width
    yz_plane = xz_plane + nx * nz * width
    xt_plane = yz_plane + ny * nz * width
    yt_plane = xt_plane + nx * nt * width
    zt_plane = yt_plane + ny * nt * width
    xy, xy_x, xy_y = look(packed, nx, x, y, width, lane, there)
    xz, xz_x, xz_z = look(xz_plane, nx, x, z, width, lane, there)
    yz, yz_y, yz_z = look(yz_plane, ny, y, z, width, lane, there)
    xt, xt_x, _ = look(xt_plane, nx, x, t, width, lane, there)
    yt, yt_y, _ = look(yt_plane, ny, y, t, width, lane, there)
    zt, zt_z, _ = look(zt_plane, nz, z, t, width, lane, there)
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
    place = sample[:, None] * width + lane
    tl.store(features + place, space * xt * yt * zt, mask=there)
    if with_jacobian:
        place = sample[:, None] * (3 * width) + lane
        tl.store(jacobian + place, (space_x * xt + space * xt_x) * yt * zt, mask=there)
        tl.store(jacobian + place + width, (space_y * yt + space * yt_y) * xt * zt, mask=there)
        tl.store(jacobian + place + 2 * width, (space_z * zt + space * zt_z) * xt * yt, mask=there)


@triton.jit
def dual_product(value, tangent, other, other_tangent):
    """Product of two dual numbers value + tangent e with e e = 0."""
    return value * other, value * other_tangent + tangent * other


@triton.jit(do_not_specialize=["count", "nx", "ny", "nz", "nt"])
def add_gradients(
    packed,
    coordinates,
    of_features,
    of_jacobian,
    copies,
    count,
    nx,
    ny,
    nz,
    nt,
    width: tl.constexpr,
    lanes: tl.constexpr,
    block: tl.constexpr,
    product: tl.constexpr,
    from_features: tl.constexpr,
    from_jacobian: tl.constexpr,
    space_copies: tl.constexpr,
    time_copies: tl.constexpr,
):
    """Adds the gradients of a block of samples to one of the copies of the planes' gradients.

    Let g = (g_x, g_y, g_z) be the gradient of the Jacobian J, for one channel. Then g J is the derivative of the
    features along g: the tangent of the combination of dual numbers v + s e, where v is a plane's value and s = g dv.
    With E + T e the dual product of the other planes, the gradient of s is E, and that of v is f E + T, where f is the
    gradient of the features.

    Args:
        packed, coordinates, count, nx, ny, nz, nt, width, lanes, block, product: As for `look_up`.
        of_features: [count, width] float32, gradients of the features.
        of_jacobian: [count, 3, width] float32, gradients of the Jacobian.
        copies: [space_copies * values of xy, xz, yz + time_copies * values of xt, yt, zt, width] float32, the result.
        from_features, from_jacobian: Whether these gradients are given.
        space_copies, time_copies: See `Launch.copies`.
    """
    program = tl.program_id(0)
    sample = program.to(tl.int64) * block + tl.arange(0, block)
    lane = tl.arange(0, lanes)[None, :]
    within = sample < count
    there = within[:, None] & (lane < width)
    x = locate(coordinates, sample, within, 0, nx)
    y = locate(coordinates, sample, within, 1, ny)
    z = locate(coordinates, sample, within, 2, nz)
    t = locate(coordinates, sample, within, 3, nt)
    zero = tl.zeros((block, lanes), dtype=tl.float32)
    f = zero
    if from_features:
        f = tl.load(of_features + sample[:, None] * width + lane, mask=there, other=0.0)
    gx = zero
    gy = zero
    gz = zero
    if from_jacobian:
        place = sample[:, None] * (3 * width) + lane
        gx = tl.load(of_jacobian + place, mask=there, other=0.0)
        gy = tl.load(of_jacobian + place + width, mask=there, other=0.0)
        gz = tl.load(of_jacobian + place + 2 * width, mask=there, other=0.0)

    xz_start = nx * ny * width
    yz_start = xz_start + nx * nz * width
    space_size = yz_start + ny * nz * width
    yt_start = nx * nt * width
    zt_start = yt_start + ny * nt * width
    time_size = zt_start + nz * nt * width
    time_planes = packed + space_size
    xy, xy_x, xy_y = look(packed, nx, x, y, width, lane, there)
    xz, xz_x, xz_z = look(packed + xz_start, nx, x, z, width, lane, there)
    yz, yz_y, yz_z = look(packed + yz_start, ny, y, z, width, lane, there)
    xt, xt_x, _ = look(time_planes, nx, x, t, width, lane, there)
    yt, yt_y, _ = look(time_planes + yt_start, ny, y, t, width, lane, there)
    zt, zt_z, _ = look(time_planes + zt_start, nz, z, t, width, lane, there)
    xy_s = gx * xy_x + gy * xy_y
    xz_s = gx * xz_x + gz * xz_z
    yz_s = gy * yz_y + gz * yz_z
    xt_s = gx * xt_x
    yt_s = gy * yt_y
    zt_s = gz * zt_z

    xt_yt, xt_yt_s = dual_product(xt, xt_s, yt, yt_s)
    time, time_s = dual_product(xt_yt, xt_yt_s, zt, zt_s)
    if product:
        xy_xz, xy_xz_s = dual_product(xy, xy_s, xz, xz_s)
        space, space_s = dual_product(xy_xz, xy_xz_s, yz, yz_s)
    else:
        space = xy + xz + yz
        space_s = xy_s + xz_s + yz_s

    # Each plane's cofactor E + T e, then its share of the gradient; one plane at a time, to need few registers.
    gradients = copies + (program % space_copies) * space_size
    e, t_s = time, time_s
    if product:
        xz_yz, xz_yz_s = dual_product(xz, xz_s, yz, yz_s)
        e, t_s = dual_product(xz_yz, xz_yz_s, time, time_s)
    add(gradients, nx, x, y, f * e + t_s, gx * e, gy * e, width, lane, there)
    if product:
        xy_yz, xy_yz_s = dual_product(xy, xy_s, yz, yz_s)
        e, t_s = dual_product(xy_yz, xy_yz_s, time, time_s)
    add(gradients + xz_start, nx, x, z, f * e + t_s, gx * e, gz * e, width, lane, there)
    if product:
        xy_xz, xy_xz_s = dual_product(xy, xy_s, xz, xz_s)
        e, t_s = dual_product(xy_xz, xy_xz_s, time, time_s)
    add(gradients + yz_start, ny, y, z, f * e + t_s, gy * e, gz * e, width, lane, there)

    gradients = copies + space_copies * space_size + (program % time_copies) * time_size
    yt_zt, yt_zt_s = dual_product(yt, yt_s, zt, zt_s)
    e, t_s = dual_product(yt_zt, yt_zt_s, space, space_s)
    add(gradients, nx, x, t, f * e + t_s, gx * e, zero, width, lane, there)
    xt_zt, xt_zt_s = dual_product(xt, xt_s, zt, zt_s)
    e, t_s = dual_product(xt_zt, xt_zt_s, space, space_s)
    add(gradients + yt_start, ny, y, t, f * e + t_s, gy * e, zero, width, lane, there)
    e, t_s = dual_product(xt_yt, xt_yt_s, space, space_s)
    add(gradients + zt_start, nz, z, t, f * e + t_s, gz * e, zero, width, lane, there)
