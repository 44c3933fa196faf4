"""Ray sampling: uniform steps along each ray, restricted to the occupied cells of a grid (method.md section 4)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from consistent4d_ns.device import c_kernels, kernels
from consistent4d_ns.rendering import sampling_cpu

BOX_RADIUS = 1.0
"""The object lives in [-BOX_RADIUS, BOX_RADIUS]^3."""

DensityFn = Callable[[Float[Tensor, "points 3"], Float[Tensor, " points"]], Float[Tensor, "levels points"]]


def step_size(samples_per_ray: int) -> float:
    """Distance between samples: the box diagonal over `samples_per_ray` (upstream writes sqrt(3) as 1.732)."""
    return 1.732 * 2 * BOX_RADIUS / samples_per_ray


@dataclass(frozen=True)
class PackedSamples:
    """Samples of many rays in one list, ordered by ray and then by distance."""

    ray_indices: Int64[Tensor, " samples"]
    """Ray of each sample."""
    starts: Float[Tensor, " samples"]
    """Distance along the ray at which the sample's segment begins."""
    points: Float[Tensor, "samples 3"]
    """Mid points of the segments, in the box."""
    step: float
    """Length of every segment."""
    offsets: Int64[Tensor, " rays+1"]
    """Where each ray's samples begin in the list, and at last the number of samples (see `ray_offsets`)."""
    is_padded: bool = False
    """Whether the list may go on behind the samples, with entries that stand for nothing (see `padded`)."""

    def __len__(self) -> int:
        return self.ray_indices.shape[0]

    def padded(self, capacity: int) -> PackedSamples:
        """A list of `capacity` entries: the samples, as many as fit, and padding: ray 0, distance 0, the box's centre.

        Padding has no weight, hence no gradient; what is computed for it must be finite, and not counted.
        """
        missing = max(0, capacity - len(self))
        lists = (self.ray_indices, self.starts, self.points)
        lists = (torch.cat((t, t.new_zeros(missing, *t.shape[1:])))[:capacity] for t in lists)
        return PackedSamples(*lists, self.step, self.offsets.clamp(max=capacity), is_padded=True)

    @property
    def kept(self) -> Float[Tensor, " samples"] | None:
        """1 for samples, 0 for padding; None where there can be none."""
        if not self.is_padded:
            return None
        return (torch.arange(len(self), device=self.starts.device) < self.offsets[-1]).to(self.starts)

    def select(self, kept: Int64[Tensor, " kept"]) -> PackedSamples:
        """The samples with the given places in the list, which are in ascending order; all rays stay."""
        rays = self.ray_indices[kept]
        return PackedSamples(rays, self.starts[kept], self.points[kept], self.step, ray_offsets(rays, self.num_rays))

    @property
    def num_rays(self) -> int:
        """Rays, with and without samples."""
        return len(self.offsets) - 1

    @property
    def mids(self) -> Float[Tensor, " samples"]:
        """Distances of the mid points."""
        return self.starts + 0.5 * self.step


def ray_offsets(ray_indices: Int64[Tensor, " samples"], num_rays: int) -> Int64[Tensor, " rays+1"]:
    """Where the samples of each of `num_rays` rays begin in a list ordered by ray, and the length of the list."""
    return torch.searchsorted(ray_indices, torch.arange(num_rays + 1, device=ray_indices.device))


Box = tuple[Float[Tensor, "3"], Float[Tensor, "3"]]
"""Lowest and highest corner of a box along the axes."""


def box_interval(
    origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"], box: Box | None = None
) -> tuple[Float[Tensor, " rays"], Float[Tensor, " rays"]]:
    """Distances at which rays enter and leave a box (default: the object's); entry exceeds exit for rays that miss."""
    low, high = box if box is not None else (-BOX_RADIUS, BOX_RADIUS)
    parallel = directions.abs() < 1e-12
    safe = torch.where(parallel, torch.ones_like(directions), directions)
    to_low, to_high = (low - origins) / safe, (high - origins) / safe
    inside = (low <= origins) & (origins <= high)
    unbounded = torch.where(inside, math.inf, -math.inf).to(origins.dtype)
    near = torch.where(parallel, -unbounded, torch.minimum(to_low, to_high))
    far = torch.where(parallel, unbounded, torch.maximum(to_low, to_high))
    return near.amax(dim=-1), far.amin(dim=-1)


def lattice_samples(
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    step: float,
    jitter: Float[Tensor, " rays"] | None,
    occupied: Callable[[Float[Tensor, "points 3"]], Bool[Tensor, " points"]],
    nears: Float[Tensor, " rays"] | None = None,
    fars: Float[Tensor, " rays"] | None = None,
    occupied_box: Box | None = None,
) -> PackedSamples:
    """Segments [t, t + step] with t = (jitter + k) step whose mid point is in the box and in an occupied cell.

    Args:
        origins: Ray origins in world units.
        directions: Unit directions.
        step: Segment length.
        jitter: Shift of each ray's lattice in steps, in [0, 1); None: no shift.
        occupied: Tells which points lie in occupied cells.
        nears: Optional distances before which nothing is sampled.
        fars: Optional distances behind which nothing is sampled.
        occupied_box: Optional box outside of which no point is occupied; changes nothing but the time taken.
    """
    near, far = box_interval(origins, directions)
    near = torch.maximum(near, nears) if nears is not None else near
    far = torch.minimum(far, fars) if fars is not None else far
    shift = torch.zeros_like(near) if jitter is None else jitter * step
    first, counts = _candidates(origins, directions, step, shift, near, far, occupied_box)

    rays = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    place = torch.arange(len(rays), device=counts.device) - (counts.cumsum(0) - counts)[rays]
    starts = shift[rays] + (first[rays] + place) * step
    mids = starts + 0.5 * step
    points = origins[rays] + directions[rays] * mids[:, None]
    keep = (points.abs() <= BOX_RADIUS).all(dim=-1) & (mids >= near[rays]) & (mids <= far[rays]) & occupied(points)
    everything = PackedSamples(rays, starts, points, step, torch.cat((counts.new_zeros(1), counts.cumsum(0))))
    return everything.select(keep.nonzero()[:, 0])


def _candidates(
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    step: float,
    shift: Float[Tensor, " rays"],
    near: Float[Tensor, " rays"],
    far: Float[Tensor, " rays"],
    occupied_box: Box | None,
) -> tuple[Float[Tensor, " rays"], Int64[Tensor, " rays"]]:
    """First lattice index of each ray, and how many, whose mid points may lie in [near, far] and in the box."""
    if occupied_box is not None:
        enter, leave = box_interval(origins, directions, occupied_box)
        near, far = torch.maximum(near, enter), torch.minimum(far, leave)
    # One extra candidate on either side, against rounding errors.
    first = ((near - shift) / step - 0.5).floor().clamp(min=0)
    last = ((far - shift) / step - 0.5).ceil()
    ends = (far >= near) & (far < math.inf)  # Others miss, or have no direction, or are of no numbers.
    return first, torch.where(ends, (last - first + 1).clamp(min=0), torch.zeros_like(first)).long()


@dataclass(frozen=True)
class OccupancyDraws:
    """Random draws of one update of the occupancy grid, all uniform in [0, 1)."""

    cells: Int64[Tensor, " cells"]
    """Cells to evaluate, as flat indices (x slowest, z fastest)."""
    offsets: Float[Tensor, "cells 3"]
    """Position of the evaluated point inside its cell."""
    times: Float[Tensor, "cells times"]
    """Times to evaluate, as fractions of the sequence."""


class OccupancyGrid(nn.Module):
    """A coarse grid of the cells that are occupied at any time and level, so that empty space is skipped.

    Unlike upstream (method.md section 4.1, quirk 16) an update evaluates every level at several times, so that space
    is not culled which only a fine level, or only a short time, occupies. All cells are occupied at first, and again
    where an update leaves none.

    Args:
        resolution: Cells per side.
        step: Length of a ray segment; a cell's value is density times this.
        threshold: Largest value that still counts as empty; the mean of all cells is used where it is lower.
        decay: Factor on a cell's old value at every update.
    """

    values: Float[Tensor, " cells"]
    occupied: Bool[Tensor, " cells"]
    # Both are updated in place: recorded steps read them where they are.

    def __init__(self, resolution: int, step: float, threshold: float = 0.01, decay: float = 0.95) -> None:
        super().__init__()
        self.resolution, self.step, self.threshold, self.decay = resolution, step, threshold, decay
        self.register_buffer("values", torch.zeros(resolution**3))
        self.register_buffer("occupied", torch.ones(resolution**3, dtype=torch.bool))
        self.bounds: Bool[Tensor, " cells"] | None = None
        """Cells outside of which everything counts as empty, whatever its density; None: there is no such limit."""

    @property
    def cell(self) -> float:
        """Side of a cell in world units."""
        return 2.0 * BOX_RADIUS / self.resolution

    def cell_index(self, points: Float[Tensor, "points 3"]) -> Int64[Tensor, " points"]:
        """Flat cell index of points in the box."""
        scaled = (points + BOX_RADIUS) * (0.5 * self.resolution / BOX_RADIUS)
        x, y, z = scaled.long().clamp(0, self.resolution - 1).unbind(dim=-1)
        return (x * self.resolution + y) * self.resolution + z

    def forward(self, points: Float[Tensor, "points 3"]) -> Bool[Tensor, " points"]:
        """Which points lie in occupied cells."""
        return self.occupied[self.cell_index(points)]

    def centres(self) -> Float[Tensor, "cells 3"]:
        """Centres of all cells, in the order of the flat indices."""
        side = (torch.arange(self.resolution, device=self.values.device) + 0.5) * self.cell
        return torch.cartesian_prod(*[side - BOX_RADIUS] * 3)

    def limit(self, bounds: Bool[Tensor, " cells"] | None) -> None:
        """From now on, only cells within `bounds` are occupied; None: all can be, from the next update on."""
        self.bounds = bounds
        if bounds is not None:
            self.occupied &= bounds

    def occupied_box(self) -> Box:
        """The smallest box around all occupied cells; the object's whole box if there are none."""
        n = self.resolution
        grid = self.occupied.view(n, n, n)
        filled = torch.stack([grid.any(dim=a).any(dim=b) for a, b in ((2, 1), (2, 0), (1, 0))]).to(self.values)
        low, high = filled.argmax(dim=1), filled.flip(1).argmax(dim=1)
        return low * self.cell - BOX_RADIUS, BOX_RADIUS - high * self.cell

    def sample(
        self,
        origins: Float[Tensor, "rays 3"],
        directions: Float[Tensor, "rays 3"],
        jitter: Float[Tensor, " rays"] | None,
        nears: Float[Tensor, " rays"] | None = None,
        fars: Float[Tensor, " rays"] | None = None,
        capacity: int | None = None,
    ) -> PackedSamples:
        """`lattice_samples` in the occupied cells; with a capacity `padded` to it, on CUDA without synchronising."""
        place = origins, directions, self.step, jitter
        if kernels.usable(origins):
            from consistent4d_ns.rendering.sampling_kernel import grid_samples

            rays, starts, points, offsets = grid_samples(*place, self.occupied, self.resolution, nears, fars, capacity)
            return PackedSamples(rays, starts, points, self.step, offsets, capacity is not None)
        if capacity is not None:
            return self.sample(origins, directions, jitter, nears, fars).padded(capacity)
        box = self.occupied_box()
        if c_kernels.usable(origins, *(t for t in (jitter, nears, fars) if t is not None)):
            rays, starts, points, offsets = sampling_cpu.grid_samples(
                *place, self.occupied, self.resolution, nears, fars, box
            )
            return PackedSamples(rays, starts, points, self.step, offsets)
        return lattice_samples(*place, self, nears, fars, box)

    def count(
        self,
        origins: Float[Tensor, "rays 3"],
        directions: Float[Tensor, "rays 3"],
        jitter: Float[Tensor, " rays"] | None,
    ) -> Int64[Tensor, ""]:
        """How many samples `sample` finds, on the device: it is not waited for there."""
        if kernels.usable(origins):
            from consistent4d_ns.rendering.sampling_kernel import sample_offsets

            return sample_offsets(origins, directions, self.step, jitter, self.occupied, self.resolution)[-1]
        return self.sample(origins, directions, jitter).offsets[-1]

    def draw(self, step: int, times: int, warmup: int, generator: torch.Generator) -> OccupancyDraws:
        """Cells, positions and times to evaluate in the update at training step `step`.

        All cells during the first `warmup` steps; later a quarter of them at random and as many of the occupied ones.
        Times are stratified: one in each `times`-th part of the sequence.
        """
        device = self.values.device
        cells = torch.arange(len(self.values), device=device)
        if step >= warmup:
            quarter = len(cells) // 4
            anywhere = torch.randint(len(cells), (quarter,), generator=generator, device=generator.device)
            filled = self.occupied.nonzero()[:, 0]
            if len(filled) > quarter:
                chosen = torch.randint(len(filled), (quarter,), generator=generator, device=generator.device)
                filled = filled[chosen.to(device)]
            cells = torch.cat((anywhere.to(device), filled))
        offsets = torch.rand(len(cells), 3, generator=generator, device=generator.device)
        inside = torch.rand(len(cells), times, generator=generator, device=generator.device)
        strata = torch.arange(times, device=generator.device)
        return OccupancyDraws(cells, offsets.to(device), ((strata + inside) / times).to(device))

    @torch.no_grad()
    def update(self, density: DensityFn, draws: OccupancyDraws) -> None:
        """Set each evaluated cell to the largest density over levels and times, or to its decayed value if larger."""
        n = self.resolution
        corner = torch.stack((draws.cells // n**2, draws.cells // n % n, draws.cells % n), dim=-1)
        points = (corner + draws.offsets.to(self.values)) * self.cell - BOX_RADIUS
        times = draws.times.to(self.values).T * 2.0 - 1.0
        # One batched query: on a GPU the number of queries costs more than their size.
        found = density(points.repeat(len(times), 1), times.flatten()).amax(dim=0) * self.step
        found = found.view(times.shape).amax(dim=0).nan_to_num(nan=0.0)  # A NaN would stay for ever.
        decayed = self.values[draws.cells] * self.decay
        # Only evaluated cells change; where one was drawn twice the higher value stays.
        self.values[draws.cells] = decayed
        self.values.scatter_reduce_(0, draws.cells, found, reduce="amax")
        self.occupied.copy_(self.values > torch.clamp(self.values.mean(), max=self.threshold))
        self.limit(self.bounds)
        # Where nothing is left, nothing would be sampled, and nothing could come back.
        everywhere = torch.ones_like(self.occupied) if self.bounds is None else self.bounds
        self.occupied |= everywhere & ~self.occupied.any()
