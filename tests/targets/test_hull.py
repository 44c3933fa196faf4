"""The visual hull of held views."""

from __future__ import annotations

import torch

from consistent4d_ns.data.cameras import OrbitViews
from consistent4d_ns.data.rays import view_rays
from consistent4d_ns.rendering.sampling import OccupancyGrid
from consistent4d_ns.targets.bank import TargetBank, bank_from_images
from consistent4d_ns.targets.hull import visual_hull
from consistent4d_ns.targets.planning import Moments

SIZE, FRAMES, VIEWS = 32, 2, 10
CENTRES = torch.tensor([[0.4, 0.0, 0.0], [0.0, -0.4, 0.2]])
"""Centre of a ball at each frame."""
RADIUS = 0.25


def ball_bank() -> TargetBank:
    """Silhouettes of the ball from all around, at both frames."""
    generator = torch.Generator().manual_seed(0)
    count = FRAMES * VIEWS
    azimuth = torch.arange(count) * 360.0 / VIEWS
    elevation = torch.rand(count, generator=generator) * 60.0 - 10.0
    views = OrbitViews(elevation, azimuth, torch.full((count,), 2.5), torch.full((count,), 50.0))
    frames = torch.arange(count) // VIEWS
    rays = view_rays(views, torch.zeros(count), SIZE)
    to_ball = CENTRES[frames].repeat_interleave(SIZE**2, 0) - rays.origins
    along = (to_ball * rays.directions).sum(dim=-1, keepdim=True)
    hit = (to_ball - along * rays.directions).norm(dim=-1) < RADIUS
    opacity = hit.view(count, SIZE, SIZE).float()
    moments = Moments(views, frames, frames.float())
    return bank_from_images(0, moments, opacity[:, None].expand(-1, 3, -1, -1), opacity, opacity.bool())


def test_the_hull_holds_the_object_at_every_frame_and_little_else():
    points = 2 * torch.rand(20_000, 3, generator=torch.Generator().manual_seed(1)) - 1
    distance = (points[:, None] - CENTRES).norm(dim=-1).amin(dim=1)
    inside = visual_hull(ball_bank(), points, radius=0.1)
    assert inside[distance < RADIUS].all()
    assert not inside[distance > 2 * RADIUS + 0.2].any()


def test_what_no_view_shows_is_not_excluded():
    outside_all_pictures = torch.tensor([[0.0, 0.0, 30.0], [0.0, 0.0, -30.0]])
    assert visual_hull(ball_bank(), outside_all_pictures, radius=0.1).all()


def dense(points: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """The same density everywhere."""
    return torch.full((1, len(points)), 100.0)


def test_cells_outside_of_the_limit_stay_empty_until_it_is_lifted():
    grid = OccupancyGrid(8, step=0.1)
    bounds = grid.centres()[:, 0] > 0
    grid.limit(bounds)
    assert torch.equal(grid.occupied, bounds)
    assert torch.equal(grid(grid.centres()), bounds)
    draws = grid.draw(0, 2, warmup=1, generator=torch.Generator().manual_seed(0))
    grid.update(dense, draws)
    assert torch.equal(grid.occupied, bounds)
    grid.limit(None)
    grid.update(dense, draws)
    assert grid.occupied.all()
