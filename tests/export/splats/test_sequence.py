"""Gaussians of a known object: they look like its volume render, and the same ones move on from frame to frame."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from benchmarks.splats import drawn_by_tiles, half_way, psnrs, read_back
from consistent4d_ns.errors import InputError
from consistent4d_ns.export.options import TimeOptions
from consistent4d_ns.export.splats import sequence
from consistent4d_ns.export.splats.files import ply
from consistent4d_ns.export.splats.fitting import fitted, quality, target
from consistent4d_ns.export.splats.options import SplatOptions
from consistent4d_ns.export.splats.raster import draw
from consistent4d_ns.export.splats.seeding import each, seed, views_around
from consistent4d_ns.export.splats.sequence import drawing, splatter
from consistent4d_ns.runs import Run
from tests.export.objects import RADIUS, BallField, ball_run
from tests.export.splats.objects import VIEW, directions

pytestmark = pytest.mark.slow

SIZE = 64


def test_the_converted_field_looks_like_its_volume_render(ball: Run):
    model = ball.pipeline.model
    gaussians = seed(model, 64, views_around(VIEW, 12), 0.5)
    # Classic splatting widens Gaussians by a part of a pixel, which counts in small pictures.
    targets = [target(model, view, 0.5, 4 * SIZE) for view in each(directions(2))]
    assert quality(gaussians, targets, draw) > 33.0
    # What no view sees has no Gaussian.
    assert gaussians.means.norm(dim=1).min() > 0.5 * RADIUS


def test_haze_stays_haze(tmp_path):
    model = ball_run(tmp_path, BallField(density=1.0)).pipeline.model
    gaussians = seed(model, 32, views_around(VIEW, 6), 0.0)
    faint = target(model, VIEW, 0.0, SIZE)
    assert 0.1 < faint.opacity.max() < 0.7
    difference = draw(gaussians, VIEW, SIZE)[1] - faint.opacity
    assert difference.abs().max() < 0.1
    assert difference.abs().mean() < 0.02


def test_fitting_brings_few_gaussians_closer(ball: Run):
    model = ball.pipeline.model
    targets = [target(model, view, 0.0, SIZE) for view in each(directions(8))]
    others = [target(model, view, 0.0, SIZE) for view in each(views_around(VIEW, 3))]
    converted = seed(model, 24, directions(8), 0.0)
    assert quality(fitted(converted, targets, 40, draw), others, draw) > quality(converted, others, draw) + 3.0


@pytest.fixture
def small(monkeypatch):
    """Few and small views."""
    monkeypatch.setattr(sequence, "SIZE", 48)
    monkeypatch.setattr(sequence, "LOOKING_VIEWS", 6)


def test_the_same_gaussians_move_on(ball: Run, small):
    source = splatter(ball, SplatOptions(cells=20, fit_steps=80), TimeOptions(times=(0.4, 0.6)))
    first, second = source.frames()
    assert (first.begin, second.begin) == (0, 0)
    assert len(first.gaussians) == len(second.gaussians)
    # The ball grows longer in x, and in no other direction.
    growth = second.gaussians.means.abs().mean(dim=0) - first.gaussians.means.abs().mean(dim=0)
    assert growth[0] > 2.0 * growth[1:].abs().max()
    # Half-way between their files is half-way in time.
    middle = half_way(*(read_back(ply(frame.gaussians), "ply") for frame in (first, second)))
    assert min(psnrs(source.model, middle, directions(3), 0.5, SIZE, drawn_by_tiles)) > 26.0


def test_a_new_set_begins_where_the_old_one_does_not_fit(ball: Run, small, monkeypatch):
    monkeypatch.setattr(sequence, "ALLOWED_LOSS", -100.0)
    options = SplatOptions(cells=16, fit_steps=1)
    assert [frame.begin for frame in splatter(ball, options, TimeOptions(frames=2)).frames()] == [0, 1]
    monkeypatch.setattr(sequence, "ALLOWED_LOSS", 100.0)
    assert [frame.begin for frame in splatter(ball, options, TimeOptions(frames=2)).frames()] == [0, 0]
    alone = replace(options, shared=False)
    assert [frame.begin for frame in splatter(ball, alone, TimeOptions(frames=2)).frames()] == [0, 1]


def test_defaults_depend_on_the_device():
    options = SplatOptions()
    assert (options.steps_on("cpu"), options.steps_on("cuda")) == (0, 300)
    assert options.cells_for(0) > options.cells_for(300)
    assert SplatOptions(cells=40).cells_for(0) == 40


def test_a_time_at_which_nothing_is_visible_is_named(tmp_path):
    source = splatter(ball_run(tmp_path, BallField(density=0.02)), SplatOptions(), TimeOptions(times=(0.25,)))
    with pytest.raises(InputError, match=r"frame 0 \(time 0.25\): nothing is visible"):
        next(source.frames())


def test_what_draws_is_said(monkeypatch):
    assert drawing(None, "cpu") == (draw, "with the rasteriser in PyTorch")
    with pytest.raises(InputError, match=r"--rasteriser gsplat needs gsplat's CUDA kernels.*give --rasteriser torch"):
        drawing("gsplat", "cpu")
    monkeypatch.setattr(sequence, "gsplat_fault", lambda: "there is no nvcc")
    used, words = drawing(None, "cuda")
    assert used is draw
    assert "there is no nvcc" in words
    monkeypatch.setattr(sequence, "gsplat_fault", lambda: None)
    assert drawing(None, "cuda") == (sequence.draw_with_gsplat, "with gsplat")
    assert drawing("torch", "cuda")[0] is draw


def test_views_are_spread_over_all_sides():
    views = views_around(VIEW, 32)
    seen = torch.nn.functional.normalize(views.poses()[..., 3], dim=1)
    assert seen.mean(dim=0).norm() < 0.15
    closest = torch.cdist(seen, seen).fill_diagonal_(math.inf).min(dim=1).values
    assert closest.min() > 0.15
