"""Ray marching through an occupancy grid as a Triton kernel: `sampling.lattice_samples` for a grid.

Each thread marches along one ray in two passes: the first counts its samples, the second writes them after those of
the preceding rays. Where the second pass has room for a given number of samples, the host need not know how many there
are. Fused multiply-adds are disabled, so that rounding, and hence the samples, are the same as in torch.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from consistent4d_ns.device.kernels import ceil_div, launch

RAYS = 64
"""Rays per program."""


@triton.jit
def _entry_distance(origin, direction):
    """Distance at which a coordinate enters [-1, 1] (slab method, see `sampling.box_interval`)."""
    parallel = tl.abs(direction) < 1e-12
    safe = tl.where(parallel, 1.0, direction)
    crossed = tl.minimum(tl.div_rn(-1.0 - origin, safe), tl.div_rn(1.0 - origin, safe))
    return tl.where(parallel, tl.where(tl.abs(origin) > 1.0, float("inf"), -float("inf")), crossed)


@triton.jit
def _exit_distance(origin, direction):
    """Distance at which a coordinate leaves [-1, 1]."""
    parallel = tl.abs(direction) < 1e-12
    safe = tl.where(parallel, 1.0, direction)
    crossed = tl.maximum(tl.div_rn(-1.0 - origin, safe), tl.div_rn(1.0 - origin, safe))
    return tl.where(parallel, tl.where(tl.abs(origin) > 1.0, -float("inf"), float("inf")), crossed)


@triton.jit
def _cell(coordinate, resolution):
    """Index of the cell along one axis."""
    scaled = (coordinate + 1.0) * (0.5 * resolution)
    return tl.minimum(tl.maximum(scaled.to(tl.int32), 0), resolution - 1)


@triton.jit
def _candidates(near, far, shift, step):
    """First and last lattice index whose mid point may lie in [near, far] (see `sampling._candidates`)."""
    # Rounded outwards, so that rounding errors lose no sample; the caller tests the mid points.
    meets = (far >= near) & (far < float("inf"))  # no end: a ray without a direction, or of no numbers
    first = tl.where(meets, tl.maximum(tl.floor((near - shift) / step - 0.5), 0.0), 0.0)
    last = tl.where(meets, tl.ceil((far - shift) / step - 0.5), -1.0)
    return first, last


@triton.jit
def _is_occupied(occupied, x, y, z, resolution, mask):
    """Whether the cells of points in the box are occupied; false where the mask is false."""
    cell = (_cell(x, resolution) * resolution + _cell(y, resolution)) * resolution + _cell(z, resolution)
    return mask & (tl.load(occupied + cell, mask=mask, other=0) != 0)


@triton.jit(do_not_specialize=["room"])
def _march(
    origins, directions, jitter, nears, fars, occupied, offsets, counts, ray_indices, starts, points, rays, resolution,
    step, room, writes: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Write the number of samples of each ray or, in the second pass, the samples.

    Args:
        origins: [rays, 3] float32.
        directions: [rays, 3] float32.
        jitter: [rays] float32 or None.
        nears: [rays] float32 or None.
        fars: [rays] float32 or None.
        occupied: [resolution^3] uint8.
        offsets: [rays + 1] int64, index of each ray's first sample; read in the second pass.
        counts: [rays] int64, samples of each ray; written in the first pass, None in the second.
        ray_indices: [room] int64, written in the second pass, like `starts` and `points`.
        starts: [room] float32, distance at which each segment begins.
        points: [room, 3] float32, mid points of the segments.
        rays: Number of rays.
        resolution: Cells per side.
        step: Length of a segment.
        room: Samples that the second pass can write; those beyond it are left out.
        writes: Whether this is the second pass.
        block: Rays per program.
    """
    ray = tl.program_id(0) * block + tl.arange(0, block)
    inside = ray < rays
    # Rays past the last one start outside the box and have no direction: they meet nothing.
    x = tl.load(origins + 3 * ray, mask=inside, other=2.0)
    y = tl.load(origins + 3 * ray + 1, mask=inside, other=2.0)
    z = tl.load(origins + 3 * ray + 2, mask=inside, other=2.0)
    along_x = tl.load(directions + 3 * ray, mask=inside, other=0.0)
    along_y = tl.load(directions + 3 * ray + 1, mask=inside, other=0.0)
    along_z = tl.load(directions + 3 * ray + 2, mask=inside, other=0.0)
    near = tl.full((block,), -float("inf"), dtype=tl.float32)
    far = tl.full((block,), float("inf"), dtype=tl.float32)
    if nears is not None:
        near = tl.load(nears + ray, mask=inside, other=0.0)
    if fars is not None:
        far = tl.load(fars + ray, mask=inside, other=0.0)
    near = tl.maximum(near, _entry_distance(x, along_x))
    near = tl.maximum(near, tl.maximum(_entry_distance(y, along_y), _entry_distance(z, along_z)))
    far = tl.minimum(far, _exit_distance(x, along_x))
    far = tl.minimum(far, tl.minimum(_exit_distance(y, along_y), _exit_distance(z, along_z)))
    shift = tl.zeros((block,), dtype=tl.float32)
    if jitter is not None:
        shift = tl.load(jitter + ray, mask=inside, other=0.0) * step
    first, last = _candidates(near, far, shift, step)  # pyright: ignore[reportGeneralTypeIssues]
    # Index of the next sample to write; in the first pass, the number of samples so far.
    slot = tl.zeros((block,), dtype=tl.int64)
    if writes:
        slot = tl.load(offsets + ray, mask=inside, other=0)
    for i in range(tl.max(last - first, axis=0).to(tl.int32) + 1):
        start = shift + (first + i) * step
        mid = start + 0.5 * step
        at_x = x + along_x * mid
        at_y = y + along_y * mid
        at_z = z + along_z * mid
        keep = (first + i <= last) & (mid >= near) & (mid <= far)
        keep = keep & (tl.abs(at_x) <= 1.0) & (tl.abs(at_y) <= 1.0) & (tl.abs(at_z) <= 1.0)
        keep = _is_occupied(occupied, at_x, at_y, at_z, resolution, keep)
        if writes:
            fits = keep & (slot < room)
            tl.store(ray_indices + slot, ray.to(tl.int64), mask=fits)
            tl.store(starts + slot, start, mask=fits)
            tl.store(points + 3 * slot, at_x, mask=fits)
            tl.store(points + 3 * slot + 1, at_y, mask=fits)
            tl.store(points + 3 * slot + 2, at_z, mask=fits)
        slot += keep.to(tl.int64)
    if not writes:
        tl.store(counts + ray, slot, mask=inside)


def sample_offsets(
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    step: float,
    jitter: Float[Tensor, " rays"] | None,
    occupied: Bool[Tensor, " cells"],
    resolution: int,
    nears: Float[Tensor, " rays"] | None = None,
    fars: Float[Tensor, " rays"] | None = None,
) -> Int64[Tensor, " rays+1"]:
    """Index of each ray's first sample in an occupied cell, and at last the number of samples: the first pass.

    The arguments are those of `sampling.lattice_samples`, and the grid's cells.
    """
    offsets = torch.zeros(len(origins) + 1, dtype=torch.int64, device=origins.device)
    counts = offsets.new_empty(len(origins))
    rays = origins, directions, jitter, nears, fars
    _run(rays, occupied, (offsets, counts, None, None, None), resolution, step, 0)
    torch.cumsum(counts, 0, out=offsets[1:])
    return offsets


def grid_samples(
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    step: float,
    jitter: Float[Tensor, " rays"] | None,
    occupied: Bool[Tensor, " cells"],
    resolution: int,
    nears: Float[Tensor, " rays"] | None = None,
    fars: Float[Tensor, " rays"] | None = None,
    capacity: int | None = None,
) -> tuple[Int64[Tensor, " samples"], Float[Tensor, " samples"], Float[Tensor, "samples 3"], Int64[Tensor, " rays+1"]]:
    """Ray, start and mid point of each sample in an occupied cell, and the index of each ray's first sample.

    These are the fields of `sampling.PackedSamples`, in float32; the arguments are those of `sample_offsets`.
    Synchronises with the device once, to read the number of samples, unless there is a capacity. The lists then have
    that length: as many samples as fit, and behind them padding of zeros (see `PackedSamples.padded`).
    """
    offsets = sample_offsets(origins, directions, step, jitter, occupied, resolution, nears, fars)
    if capacity is None:
        room, make = int(offsets[-1]), torch.empty
    else:
        room, make = capacity, torch.zeros
        offsets.clamp_(max=capacity)
    ray_indices = make(room, dtype=torch.int64, device=origins.device)
    starts, points = (make(shape, dtype=origins.dtype, device=origins.device) for shape in ((room,), (room, 3)))
    rays = origins, directions, jitter, nears, fars
    _run(rays, occupied, (offsets, None, ray_indices, starts, points), resolution, step, room)
    return ray_indices, starts, points, offsets


def _run(
    rays: tuple[Tensor | None, ...],
    occupied: Bool[Tensor, " cells"],
    results: tuple[Tensor | None, ...],
    resolution: int,
    step: float,
    room: int,
) -> None:
    """Launch a pass: the first fills `counts`, the second the lists of samples, where they are among the results."""
    origins, *others = (None if t is None else t.contiguous() for t in rays)
    assert origins is not None
    tensors = (*others, occupied.view(torch.uint8), *results)
    sizes = (len(origins), resolution, step, room, results[1] is None, RAYS)
    # Without fused multiply-adds, products and sums are rounded as in torch.
    options = {"num_warps": RAYS // 32, "enable_fp_fusion": False}
    launch(_march, (ceil_div(len(origins), RAYS),), origins, *tensors, *sizes, **options)
