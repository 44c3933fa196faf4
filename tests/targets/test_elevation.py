"""The input camera's elevation from silhouettes: right where the views are true, and sums that can be done by hand."""

from __future__ import annotations

import math

import pytest
import torch

from consistent4d_ns import toy
from consistent4d_ns.data.cameras import OrbitViews, orbit_views
from consistent4d_ns.data.rays import focal_length, pixel_rays
from consistent4d_ns.data.times import even_times
from consistent4d_ns.errors import InputError
from consistent4d_ns.guidance.config import GuidanceConfig
from consistent4d_ns.guidance.exact import ExactScoreGuidance
from consistent4d_ns.targets.elevation import (
    ElevationConfig,
    cell_centres,
    chosen_frames,
    conclude,
    estimate_elevation,
    estimate_from_frames,
    imagined_views,
    object_reach,
    projected,
    unexplained,
)

FRAMES = 4
SIZE = 32
ONE_FRAME = ElevationConfig(frames=1)
BLACK = torch.cat((torch.zeros(1, 3, SIZE, SIZE), torch.ones(1, 1, SIZE, SIZE)), dim=1)
"""A frame that is filled by a black object."""


def sampler_at(elevation: float) -> ExactScoreGuidance:
    """A prior that knows the toy, and how high the input camera stands."""
    truth = toy.ToyTruth(SIZE, FRAMES, samples_per_side=1)
    return ExactScoreGuidance(truth, orbit_views(elevation, 0.0, 2.0, 49.1), latent_size=SIZE)


def frames_of(sampler: ExactScoreGuidance) -> torch.Tensor:
    """What the input camera films."""
    elevation, azimuth, distance, _ = sampler.condition.stacked().expand(-1, FRAMES)
    return sampler.truth(elevation, azimuth, distance, torch.arange(FRAMES))


@pytest.mark.slow
@pytest.mark.parametrize("elevation", [-10.0, 10.0, 40.0])
def test_true_views_give_the_true_elevation(elevation: float):
    sampler = sampler_at(elevation)
    estimate = estimate_elevation(sampler, frames_of(sampler), ONE_FRAME)
    assert estimate.degrees == pytest.approx(elevation, abs=6)
    assert 0 < estimate.spread < 15
    assert len(estimate.scores) == len(estimate.candidates)
    # It is clearly worse to be wrong by 20 degrees.
    score = dict(zip(estimate.candidates, estimate.scores, strict=True))
    far = min(score, key=lambda candidate: abs(candidate - (elevation + 20 if elevation < 20 else elevation - 20)))
    assert score[far] > 1.3 * min(estimate.scores)


@pytest.mark.parametrize(("high", "rises"), [(90.0, {20}), (-90.0, {20, -30})])
def test_frames_and_views_that_are_asked_for(high: float, rises: set[int]):
    """The chosen frames, in a second pass where the camera seems to be high; progress is shown after each frame."""
    sampler, asked, shown = sampler_at(10.0), [], []
    images, true_sample = frames_of(sampler), sampler.sample

    def sample(poses, frames, **options):
        asked.extend({(int(frame), round(-math.degrees(pose[0]))) for frame, pose in zip(frames, poses, strict=True)})
        return true_sample(poses, frames, **options)

    def progress(frames):
        for frame in frames:
            yield frame
            shown.append(frame)

    sampler.sample = sample
    config = ElevationConfig((0.0, 10.0, 20.0), (20.0,), high, (-30.0,), azimuths=1, frames=2, cells=8)
    estimate_elevation(sampler, images, config, progress=progress)
    assert asked == [(frame, rise) for rise in sorted(rises, reverse=True) for frame in (1, 3)]
    assert shown == len(rises) * [1, 3]


@pytest.mark.slow
def test_the_bundled_prior_estimates_an_elevation():
    """From RGBA frames, of which it judges the middle one."""
    level = toy.render(orbit_views(0.0, 0.0, 2.0, 49.1, FRAMES).poses(), 49.1, 64, even_times(FRAMES), 1)
    estimate = estimate_from_frames(level, config=ElevationConfig(frames=1, sampling_steps=3))
    assert abs(estimate.degrees) <= 12
    assert 0 < 1.5 * min(estimate.scores) < estimate.scores[-1]


@pytest.mark.slow
def test_a_prior_that_is_told_the_elevation_is_refused():
    told = GuidanceConfig(prior="bundled", camera_convention="stable-zero123")
    with pytest.raises(InputError, match=r"bundled has to be told the elevation"):
        estimate_from_frames(BLACK, told)


@pytest.mark.parametrize(
    ("rgba", "message"),
    [
        (BLACK * torch.nan, "values that are not from 0 to 1"),
        (BLACK * 255, "values that are not from 0 to 1"),
        (BLACK.to(torch.uint8), "values that are not from 0 to 1"),
        (torch.zeros_like(BLACK), "nothing but white"),
        (torch.ones_like(BLACK), "nothing but white"),
        (BLACK[..., :20], "shape"),
        (BLACK[:, :3], "shape"),
        (BLACK[:0], "shape"),
    ],
)
def test_frames_that_show_no_object(rgba: torch.Tensor, message: str):
    with pytest.raises(InputError, match=message):
        estimate_from_frames(rgba)


def test_frames_of_nothing_are_refused():
    class Blank:
        def sample(self, poses, frames, **options):
            return torch.ones(len(poses), 3, SIZE, SIZE)

        def end_sampling(self):
            pass

    with pytest.raises(InputError, match=r"nothing but white.*give the elevation"):
        estimate_elevation(Blank(), torch.ones(2, 3, SIZE, SIZE))


def test_frames_are_the_middle_ones_of_equal_parts():
    assert chosen_frames(32, 3) == [5, 16, 26]
    assert chosen_frames(2, 3) == [0, 1]
    assert chosen_frames(1, 3) == [0]


def test_the_input_camera_is_first_and_is_not_imagined():
    views = imagined_views((0.0, 20.0), 4, orbit_views(0.0, 0.0, 2.0, 49.1))
    pairs = list(zip(views.elevation.tolist(), views.azimuth.tolist(), strict=True))
    level = [(0.0, 0.0), (0.0, 90.0), (0.0, 180.0), (0.0, 270.0)]
    assert pairs == [*level, *((20.0, azimuth) for _, azimuth in level)]


def test_points_on_a_ray_are_projected_to_its_pixel():
    views = OrbitViews(
        torch.tensor([10.0, -35.0]), torch.tensor([0.0, 130.0]), torch.full((2,), 2.0), torch.full((2,), 49.1)
    )
    origins, directions = pixel_rays(views.poses(), focal_length(views.fovy, 8), 8, 8)
    for view, depth in ((0, 1.2), (1, 2.7)):
        points = (origins + depth * directions)[view].reshape(-1, 3)
        x, y = ((projected(points, views)[view] + 1) * 4).unbind(-1)
        torch.testing.assert_close(x.view(8, 8)[3], torch.arange(8) + 0.5, atol=1e-4, rtol=0)
        torch.testing.assert_close(y.view(8, 8)[:, 5], torch.arange(8) + 0.5, atol=1e-4, rtol=0)


def test_what_other_views_rule_out_is_not_explained():
    """Opposite views of a ball agree. If one of them shows but half of it, half of the other has no cause."""
    views = OrbitViews(torch.zeros(2), torch.tensor([0.0, 180.0]), torch.full((2,), 20.0), torch.full((2,), 6.0))
    axis = (2 * torch.arange(24) + 1) / 24 - 1
    disc = (axis[:, None].square() + axis.square() < 0.5).float()
    points = cell_centres(object_reach(disc.expand(2, -1, -1), views), 40)
    assert unexplained(disc.expand(2, -1, -1), views, points) < 0.03
    upper = disc * (axis < 0)[:, None]
    assert unexplained(torch.stack((disc, upper)), views, points).item() == pytest.approx(0.25, abs=0.03)


def test_the_cube_holds_all_that_is_seen():
    """A pixel at the border of the picture is as far from its centre as the field of view reaches."""
    views = orbit_views(0.0, 0.0, 2.0, 90.0)
    picture = torch.zeros(1, 10, 10)
    picture[0, 5, 0] = 0.1
    assert object_reach(picture, views) == pytest.approx(2.0)
    assert cell_centres(2.0, 2).amin().item() == -1.0


def test_the_estimate_is_the_lowest_point_of_a_parabola():
    candidates = (0.0, 10.0, 20.0, 30.0)
    estimate = conclude(candidates, [1 + 0.01 * (c - 13) ** 2 for c in candidates])
    assert estimate.degrees == pytest.approx(13)
    assert estimate.spread == pytest.approx(math.sqrt(0.1 * 1.09 / 0.01))


@pytest.mark.parametrize("truth", [-40.0, 80.0])
def test_beyond_the_candidates_nothing_is_clear(truth: float):
    candidates = (0.0, 10.0, 20.0, 30.0)
    estimate = conclude(candidates, [abs(c - truth) for c in candidates])
    assert estimate.degrees == (0.0 if truth < 0 else 30.0)
    assert estimate.spread == math.inf
