"""Views of a bank, and what a step fits of them."""

from __future__ import annotations

import torch

from consistent4d_ns.data.cameras import orbit_views
from consistent4d_ns.data.planning import PlanConfig, StepKind
from consistent4d_ns.data.times import FrameTimes
from consistent4d_ns.targets.planning import Moments, draw_moments, plan_targets

TIMES = FrameTimes((0.0, 0.1, 0.4, 1.0), fps=4.0)
INPUT = orbit_views(10.0, 30.0, 2.5, 40.0)


def moments(count: int = 400, seed: int = 0) -> Moments:
    return draw_moments(PlanConfig(), count, TIMES, INPUT, torch.Generator().manual_seed(seed))


def test_views_surround_the_object():
    """One azimuth in each of as many equal parts of the circle as there are views; elevations all over their range."""
    drawn = moments()
    parts = ((drawn.views.azimuth - 30.0 + 180.0) / 360.0 * 400).floor().long()
    assert torch.equal(parts.sort().values, torch.arange(400))
    assert not torch.equal(parts, torch.arange(400))
    assert -10 <= float(drawn.views.elevation.min()) < -5
    assert 55 < float(drawn.views.elevation.max()) <= 60
    assert torch.equal(drawn.views.distance, torch.full((400,), 2.5))
    assert torch.equal(drawn.views.fovy, torch.full((400,), 40.0))


def test_every_frame_comes_at_its_time():
    drawn = moments()
    assert set(drawn.frames.tolist()) == {0, 1, 2, 3}
    assert torch.equal(drawn.times, TIMES.tensor()[drawn.frames])


def test_the_seed_decides():
    one, same, other = moments(20, 3), moments(20, 3), moments(20, 4)
    assert torch.equal(one.views.azimuth, same.views.azimuth)
    assert torch.equal(one.frames, same.frames)
    assert not torch.equal(one.views.azimuth, other.views.azimuth)


def test_a_step_shows_random_pixels_of_all_views():
    drawn = moments(50)
    plan = plan_targets(7, drawn, 64, 4096)
    assert plan.kind is StepKind.TARGETS
    assert (plan.step, plan.image_size) == (7, 64)
    assert (plan.num_pixels, plan.num_rays) == (50 * 64**2, 4096)
    assert torch.equal(plan.views.azimuth, drawn.views.azimuth)
    assert torch.equal(plan.times, drawn.times)
