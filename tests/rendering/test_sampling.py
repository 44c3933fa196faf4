"""The occupancy grid and the ray lattice against recorded ones, and what neither may lose."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from consistent4d_ns.rendering.sampling import (
    OccupancyDraws,
    OccupancyGrid,
    PackedSamples,
    box_interval,
    lattice_samples,
    step_size,
)
from tests.support.agreement import assert_agrees
from tests.support.golden_field import recorded_field
from tests.support.hash_fill import hash_u

STEP = step_size(256)
CELLS = 32**3
WARMUP = 256


def everywhere(points: Tensor) -> Tensor:
    return torch.ones(len(points), dtype=torch.bool)


def sample(origin: list[float], direction: list[float], step: float = STEP, **options: Any) -> PackedSamples:
    """Samples of one ray through a full box."""
    origins, directions = (torch.tensor([vector], dtype=torch.float32) for vector in (origin, direction))
    return lattice_samples(origins, directions, step, options.pop("jitter", None), everywhere, **options)


@pytest.fixture(scope="module")
def recorded(golden) -> dict[str, Tensor]:
    return golden("occupancy.safetensors")


def binaries(recorded: dict[str, Tensor], step: int) -> Tensor:
    return torch.from_numpy(np.unpackbits(recorded[f"binaries_packed.{step}"].numpy()).astype(bool))


def uniform(count: int, salt: int) -> Tensor:
    """The recorded random numbers, in [0, 1)."""
    return torch.from_numpy((hash_u(count, salt) + 1) / 2)


def recorded_draws(salt: int, occupied: Tensor | None) -> OccupancyDraws:
    """Draws of one recorded update: of all cells, or of 8192 random ones and the `occupied`."""
    cells = torch.arange(CELLS)
    if occupied is not None:
        anywhere = (uniform(8192, salt) * CELLS).long()
        cells, salt = torch.cat((anywhere, occupied.nonzero()[:, 0])), salt + 1
    offsets = uniform(3 * len(cells), salt).float().view(-1, 3)
    return OccupancyDraws(cells, offsets, uniform(len(cells), salt + 1).float()[:, None])


@pytest.mark.parametrize(
    ("step", "previous", "salt"),
    [(0, None, 1000), (16, 0, 1002), (256, 240, 1008), (272, 256, 1011)],
)
def test_recorded_updates(
    golden, golden_json, recorded: dict[str, Tensor], step: int, previous: int | None, salt: int
) -> None:
    """With upstream's questions (level 0, one moment) the values are upstream's.

    Where a cell is drawn twice upstream keeps whichever comes last, we the higher: these cells (about 1500 of 32768 in
    the two updates after the warm-up) are only required not to be lower.
    """
    field_name = "kplanes_consistent4d_reduced"
    config = golden_json(f"{field_name}.json")["config"]
    field = recorded_field(golden(f"{field_name}.safetensors"), config, torch.float32)
    grid = OccupancyGrid(32, STEP)
    if previous is not None:
        grid.values, grid.occupied = recorded[f"occs.{previous}"].clone(), binaries(recorded, previous)
    draws = recorded_draws(salt, grid.occupied if step >= WARMUP else None)

    grid.update(lambda points, times: field.density(points, times)[:1], draws)

    wanted = recorded[f"occs.{step}"]
    once = torch.bincount(draws.cells, minlength=CELLS) <= 1
    assert (~once).sum() == {256: 1548, 272: 1528}.get(step, 0)
    assert_agrees("occupancy values", grid.values[once], wanted[once], 1e-6)
    assert (grid.values - wanted >= -1e-6).all()
    threshold = wanted.mean().clamp(max=0.01)  # upstream's: the cells drawn twice move ours a little
    clear = once & ((wanted - threshold).abs() > 1e-6)
    assert torch.equal((grid.values > threshold)[clear], binaries(recorded, step)[clear])
    assert torch.equal(grid.occupied, grid.values > grid.values.mean().clamp(max=0.01))


@pytest.mark.parametrize("run", ["nojitter", "jitter"])
def test_recorded_samples(recorded: dict[str, Tensor], run: str) -> None:
    grid = OccupancyGrid(32, STEP)
    grid.occupied = binaries(recorded, 272)
    origins, directions = recorded["rays_o"].view(-1, 3), recorded["rays_d"].view(-1, 3)

    samples = lattice_samples(origins, directions, STEP, recorded["jitter_u"] if run == "jitter" else None, grid)

    assert torch.equal(samples.ray_indices, recorded[f"{run}.ray_indices"].long())
    assert_agrees(f"sample starts, {run}", samples.starts, recorded[f"{run}.t_starts"], 1e-5)
    assert_agrees(f"sample ends, {run}", samples.starts + samples.step, recorded[f"{run}.t_ends"], 1e-5)


@pytest.mark.parametrize("run", ["nojitter", "jitter"])
def test_the_box_of_occupied_cells_changes_no_sample(recorded: dict[str, Tensor], run: str) -> None:
    grid = OccupancyGrid(32, STEP)
    grid.occupied = binaries(recorded, 272)
    rays = recorded["rays_o"].view(-1, 3), recorded["rays_d"].view(-1, 3)
    jitter = recorded["jitter_u"] if run == "jitter" else None
    asked = []

    def occupied(points: Tensor) -> Tensor:
        asked.append(len(points))
        return grid(points)

    plain = lattice_samples(*rays, STEP, jitter, occupied)
    narrowed = lattice_samples(*rays, STEP, jitter, occupied, occupied_box=grid.occupied_box())
    assert torch.equal(narrowed.ray_indices, plain.ray_indices)
    assert torch.equal(narrowed.starts, plain.starts)
    assert torch.equal(narrowed.points, plain.points)
    assert asked[1] < asked[0]


def test_the_box_of_occupied_cells() -> None:
    grid = OccupancyGrid(4, STEP)
    grid.occupied[:] = False
    low, high = grid.occupied_box()
    assert low.tolist() == [-1.0] * 3
    assert high.tolist() == [1.0] * 3
    grid.occupied[grid.cell_index(torch.tensor([[-0.4, 0.1, 0.9], [0.3, 0.1, 0.6]]))] = True
    low, high = grid.occupied_box()
    assert low.tolist() == [-0.5, 0.0, 0.5]
    assert high.tolist() == [0.5, 0.5, 1.0]


def slab(
    low: float, high: float, begin: float = -1.0, end: float = 1.0, levels: int = 2
) -> Callable[[Tensor, Tensor], Tensor]:
    """Matter on the finest level only, where x is in [low, high) and for times in [begin, end]."""

    def density(points: Tensor, times: Tensor) -> Tensor:
        x = points[:, 0]
        inside = (x >= low) & (x < high) & (times >= begin) & (times <= end)
        return torch.cat((torch.zeros(levels - 1, len(points)), 20.0 * inside[None]))

    return density


def slab_cells(grid: OccupancyGrid, low: float, high: float) -> Tensor:
    first, last = ((edge + 1) * grid.resolution / 2 for edge in (low, high))
    return grid.occupied.view(grid.resolution, -1)[round(first) : round(last)]


def run_updates(grid: OccupancyGrid, density: Callable[[Tensor, Tensor], Tensor], times: int, updates: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for update in range(updates):
        grid.update(density, grid.draw(16 * update, times, WARMUP, generator))


def test_what_only_the_finest_level_shows_is_kept() -> None:
    """Upstream asks level 0 alone and loses it (quirk 16)."""
    kept, lost = OccupancyGrid(16, STEP), OccupancyGrid(16, STEP)
    density = slab(-0.5, 0.25)
    run_updates(kept, density, times=4, updates=40)
    run_updates(lost, lambda points, times: density(points, times)[:1], times=4, updates=1)
    assert slab_cells(kept, -0.5, 0.25).all()
    assert kept.occupied.sum() == 6 * 16**2, "and nothing else is"
    assert not lost.values.any()


@pytest.mark.parametrize("begin", [-1.0, -0.63, 0.11, 0.5])
def test_what_lasts_two_strata_is_never_culled(begin: float) -> None:
    """Two neighbouring strata of the sequence always hold a whole one of any stretch as long: every update sees it."""
    density = slab(-0.5, 0.25, begin, begin + 2 * 2 / 8)
    grid, generator = OccupancyGrid(16, STEP), torch.Generator().manual_seed(0)
    for update in range(40):
        grid.update(density, grid.draw(16 * update, 8, WARMUP, generator))
        assert slab_cells(grid, -0.5, 0.25).all(), f"update {update}"


def test_what_lasts_one_moment_is_kept_after_the_warmup() -> None:
    """Present for 1/8 of the sequence: several moments and slow decay find and keep it, one moment does not."""
    density = slab(-0.5, 0.25, 0.3, 0.3 + 2 / 8)
    kept, upstream = OccupancyGrid(16, STEP), OccupancyGrid(16, STEP)
    run_updates(kept, density, times=4, updates=60)
    run_updates(upstream, density, times=1, updates=16)
    assert slab_cells(kept, -0.5, 0.25).all()
    assert not slab_cells(upstream, -0.5, 0.25).all()


def test_what_disappears_is_culled_in_time() -> None:
    grid = OccupancyGrid(8, STEP)
    run_updates(grid, slab(-0.5, 0.5), times=4, updates=4)
    assert grid.occupied.any()
    run_updates(grid, slab(0.5, 1.0), times=4, updates=250)
    assert torch.equal(grid.occupied.view(8, -1).any(dim=1), torch.arange(8) >= 6)


def test_grid_starts_fully_occupied() -> None:
    assert OccupancyGrid(4, STEP)(torch.rand(100, 3) * 2 - 1).all()


def test_grid_is_restored_from_its_state() -> None:
    grid, restored = OccupancyGrid(8, STEP), OccupancyGrid(8, STEP)
    run_updates(grid, slab(-0.5, 0.5), times=2, updates=2)
    restored.load_state_dict(grid.state_dict())
    assert torch.equal(grid.values, restored.values)
    assert torch.equal(grid.occupied, restored.occupied)


def test_dense_cells_do_not_hide_thin_ones() -> None:
    """The threshold is the mean, but never more than 0.01."""
    grid = OccupancyGrid(2, step=1.0)
    density = torch.tensor([100.0, 0.011, 0.009, 0, 0, 0, 0, 0])
    draws = OccupancyDraws(torch.arange(8), torch.full((8, 3), 0.5), torch.full((8, 1), 0.5))
    grid.update(lambda points, times: density[grid.cell_index(points)][None], draws)
    assert grid.occupied.tolist() == [True, True] + [False] * 6


def test_only_looked_at_cells_change() -> None:
    grid = OccupancyGrid(2, step=1.0)
    grid.values[:] = 1.0
    draws = OccupancyDraws(torch.tensor([3, 3, 5]), torch.rand(3, 3), torch.rand(3, 1))
    grid.update(lambda points, times: torch.tensor([[7.0, 2.0, 0.0]]), draws)
    assert grid.values.tolist() == pytest.approx([1, 1, 1, 7.0, 1, 0.95, 1, 1])


@pytest.mark.parametrize("step", [0, WARMUP])
def test_draws_follow_their_generator(step: int) -> None:
    grid = OccupancyGrid(8, STEP)
    first, again, other = (grid.draw(step, 4, WARMUP, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    for name in ("cells", "offsets", "times"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert not torch.equal(first.offsets, other.offsets)


def test_draws_during_warmup_look_at_every_cell_and_part_of_the_sequence() -> None:
    draws = OccupancyGrid(8, STEP).draw(0, 4, WARMUP, torch.Generator().manual_seed(0))
    assert torch.equal(draws.cells, torch.arange(512))
    assert 0 <= draws.offsets.min() <= draws.offsets.max() < 1
    assert torch.equal((draws.times * 4).long(), torch.arange(4).expand(512, 4))


@pytest.mark.parametrize("occupied", [0, 100, 400])
def test_draws_after_warmup_are_a_quarter_and_as_many_occupied_ones(occupied: int) -> None:
    grid = OccupancyGrid(8, STEP)
    grid.occupied = torch.arange(512) < occupied
    cells = grid.draw(WARMUP, 2, WARMUP, torch.Generator().manual_seed(0)).cells
    assert len(cells) == 128 + min(occupied, 128)
    assert (cells[128:] < max(occupied, 1)).all()


def test_probes_lie_in_their_cells() -> None:
    grid, seen = OccupancyGrid(8, STEP), []
    draws = grid.draw(0, 3, WARMUP, torch.Generator().manual_seed(0))

    def density(points: Tensor, times: Tensor) -> Tensor:
        assert torch.equal(grid.cell_index(points), draws.cells.repeat(3))
        seen.extend((moment.min().item(), moment.max().item()) for moment in times.view(3, -1))
        return torch.zeros(1, len(points))

    grid.update(density, draws)
    thirds = pairwise((-1.0, -1 / 3, 1 / 3, 1.0))
    assert all(low <= least and most <= high for (least, most), (low, high) in zip(seen, thirds, strict=True))


def test_cells_are_numbered_x_slowest_and_the_border_belongs_to_the_last() -> None:
    points = [[-1, -1, -1], [1, 1, 1], [-1, -1, 1], [-1, 1, -1], [1, -1, -1], [0, 0, 0], [-1e-6, -1e-6, -1e-6]]
    index = OccupancyGrid(4, STEP).cell_index(torch.tensor(points, dtype=torch.float32))
    assert index.tolist() == [0, 63, 3, 12, 48, 42, 21]


def test_box_interval_against_geometry() -> None:
    """Through the middle, along a face, from inside, past the box, away from it, along an edge's diagonal."""
    origins = torch.tensor([[-3.0, 0, 0], [-3, 1, 0], [0.5, 0, 0], [-3, 1.5, 0], [3, 0, 0], [2, 2, 0]])
    directions = torch.tensor([[1.0, 0, 0]] * 5 + [[-(0.5**0.5), -(0.5**0.5), 0]])
    near, far = box_interval(origins, directions)
    assert near[:3].tolist() == pytest.approx([2.0, 2.0, -1.5])
    assert far[:3].tolist() == pytest.approx([4.0, 4.0, 0.5])
    assert near[3] > far[3]
    assert far[4] < 0
    assert [near[5].item(), far[5].item()] == pytest.approx([2**0.5, 3 * 2**0.5])


def test_ray_through_the_box_is_cut_into_all_its_segments() -> None:
    """From (-2, 0, 0) along x the box is [1, 3]; steps of 0.25 from 0 have the mid points 1.125, ..., 2.875 in it."""
    samples = sample([-2, 0, 0], [1, 0, 0], step=0.25)
    assert samples.starts.tolist() == [1.0 + 0.25 * k for k in range(8)]
    assert samples.mids.tolist() == [1.125 + 0.25 * k for k in range(8)]
    assert torch.equal(samples.points[:, 0], samples.mids - 2)
    assert not samples.points[:, 1:].any()


def test_jitter_shifts_the_whole_lattice() -> None:
    samples = sample([-2, 0, 0], [1, 0, 0], step=0.25, jitter=torch.tensor([0.5]))
    # Mid points 1.0 and 3.0 lie on the box, which counts as inside.
    assert samples.mids.tolist() == [1.0 + 0.25 * k for k in range(9)]


@pytest.mark.parametrize("direction", [[1, 0, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
def test_rays_parallel_to_the_axes_miss_nothing(direction: list[float]) -> None:
    inside = sample([-3 * d for d in direction], direction)
    assert len(inside) * STEP == pytest.approx(2.0, abs=STEP)
    offset = [1.5 if d == 0 else -3 * d for d in direction]
    assert len(sample(offset, direction)) == 0


def test_rays_from_inside_begin_at_their_origin() -> None:
    samples = sample([0.5, 0.25, 0], [1, 0, 0], step=0.125)
    assert samples.starts.tolist() == [0, 0.125, 0.25, 0.375]


def test_nothing_lies_behind_a_ray() -> None:
    assert len(sample([3, 0, 0], [1, 0, 0])) == 0


def test_rays_that_miss_keep_their_place() -> None:
    origins = torch.tensor([[-2.0, 0, 0], [-2, 5, 0], [-2, 0.5, 0.5]])
    samples = lattice_samples(origins, torch.tensor([[1.0, 0, 0]]).expand(3, 3), 0.5, None, everywhere)
    assert samples.ray_indices.tolist() == [0] * 4 + [2] * 4
    assert samples.num_rays == 3


def test_nears_and_fars_bound_the_mid_points() -> None:
    samples = sample([-2, 0, 0], [1, 0, 0], step=0.25, nears=torch.tensor([1.5]), fars=torch.tensor([2.4]))
    assert samples.mids.tolist() == [1.625, 1.875, 2.125, 2.375]
    everything = sample([-2, 0, 0], [1, 0, 0], step=0.25, nears=torch.tensor([0.0]), fars=torch.tensor([100.0]))
    assert len(everything) == 8
    assert len(sample([-2, 0, 0], [1, 0, 0], nears=torch.tensor([2.5]), fars=torch.tensor([2.0]))) == 0


def test_empty_cells_are_not_sampled() -> None:
    samples = lattice_samples(
        torch.tensor([[-2.0, 0, 0]]), torch.tensor([[1.0, 0, 0]]), 0.25, None, lambda points: points[:, 0] > 0.5
    )
    assert samples.mids.tolist() == [2.625, 2.875]


@pytest.mark.parametrize(
    ("origin", "direction"),
    [
        ([0.1, 0.2, 0.3], [0.0, 0.0, 0.0]),
        ([3.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
        ([3.0, 0.0, 0.0], [math.nan] * 3),
        ([0.1, 0.2, 0.3], [1.0, math.nan, 0.0]),
        ([math.nan] * 3, [1.0, 0.0, 0.0]),
        ([0.0, math.nan, 0.0], [1.0, 0.0, 0.0]),
    ],
)
def test_rays_without_a_direction_or_of_no_numbers_have_no_samples(origin: list[float], direction: list[float]) -> None:
    assert len(sample(origin, direction)) == 0


def test_no_rays() -> None:
    samples = lattice_samples(torch.empty(0, 3), torch.empty(0, 3), STEP, torch.empty(0), everywhere)
    assert (len(samples), samples.num_rays) == (0, 0)
    assert samples.points.shape == (0, 3)
    assert samples.ray_indices.dtype == torch.int64


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_random_rays_against_the_rule_itself(dtype: torch.dtype) -> None:
    """Every lattice point is tried: those whose mid point is in the box are the samples, border cases apart."""
    generator = torch.Generator().manual_seed(0)
    origins = torch.randn(200, 3, generator=generator, dtype=dtype) * 1.5
    directions = torch.nn.functional.normalize(torch.randn(200, 3, generator=generator, dtype=dtype), dim=-1)
    jitter = torch.rand(200, generator=generator, dtype=dtype)

    samples = lattice_samples(origins, directions, 0.05, jitter, everywhere)

    mids = (jitter[:, None] + torch.arange(200) + 0.5) * 0.05
    furthest = (origins[:, None] + directions[:, None] * mids[..., None]).abs().amax(dim=-1)
    taken = torch.zeros_like(furthest, dtype=torch.bool)
    taken[samples.ray_indices, ((samples.starts / 0.05) - jitter[samples.ray_indices]).round().long()] = True
    clear = (furthest - 1).abs() > 1e-5
    assert torch.equal(taken[clear], (furthest <= 1)[clear])
    assert samples.points.dtype == dtype
    order = samples.ray_indices * 1000.0 + samples.starts
    assert (order.diff() > 0).all(), "ordered by ray, then by distance"


def test_step_size_is_the_diagonal_over_the_samples() -> None:
    assert step_size(256) == 0.01353125
    assert step_size(100) == pytest.approx(2 * math.sqrt(3) / 100, rel=1e-4)
