"""Which frames and cameras training sees."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

from consistent4d_ns.data.cameras import orbit_views
from consistent4d_ns.data.planning import PlanConfig, StepKind, StepPlan, clip_stride, draw_elevations, plan_step
from consistent4d_ns.data.times import FrameTimes
from consistent4d_ns.draws import step_generator
from consistent4d_ns.errors import InputError

INPUT = orbit_views(elevation=10.0, azimuth=0.0, distance=2.0, fovy=49.1)
ALL = frozenset(StepKind)


def plan(config: PlanConfig, step: int, frames: int = 32, useful: frozenset[StepKind] = ALL) -> StepPlan:
    return plan_step(config, step, FrameTimes.even(frames), INPUT, useful, step_generator(0, step, "plan", "cpu"))


def plans(config: PlanConfig, count: int, frames: int = 32, **kwargs: frozenset[StepKind]) -> list[StepPlan]:
    """Plans of `count` distillation steps of the first stage."""
    config = replace(config, stage_steps=(0,), image_sizes=(64,), views=(4,), clip_views=(4,), reference_every=10**9)
    return [plan(config, step, frames, **kwargs) for step in range(1, count + 1)]


def test_reference_and_distillation_alternate():
    kinds = [plan(PlanConfig(), step).kind for step in range(40)]
    assert all((kind is StepKind.REFERENCE) == (step % 2 == 0) for step, kind in enumerate(kinds))


def test_kinds_have_their_shares():
    count = Counter(p.kind for p in plans(PlanConfig(), 2000))
    assert count[StepKind.IDENTICAL] == 0
    assert count[StepKind.INDEPENDENT] / 2000 == pytest.approx(0.75, abs=0.03)
    assert count[StepKind.AZIMUTHS] / 2000 == pytest.approx(0.125, abs=0.02)
    assert count[StepKind.TIMES] / 2000 == pytest.approx(0.125, abs=0.02)
    upstream = Counter(p.kind for p in plans(PlanConfig(identical_views="identical"), 2000))
    assert upstream[StepKind.IDENTICAL] / 2000 == pytest.approx(0.25, abs=0.03)


def test_only_useful_kinds_are_planned():
    clips = frozenset({StepKind.REFERENCE, StepKind.AZIMUTHS})
    assert {p.kind for p in plans(PlanConfig(), 50, useful=clips)} == {StepKind.AZIMUTHS}
    assert {p.kind for p in plans(PlanConfig(), 50, useful=frozenset({StepKind.REFERENCE}))} == {StepKind.REFERENCE}


def test_stage_follows_from_the_step():
    config = PlanConfig()
    sizes = [(plan(config, step).image_size, len(plan(config, step).frames)) for step in (4997, 4999, 5001, 9999)]
    assert sizes == [(64, 4), (64, 4), (256, 1), (256, 1)]
    assert plan(config, 5000).image_size == 256


def test_reference_images_may_have_another_size():
    config = PlanConfig(reference_sizes=(128, 200))
    assert [plan(config, step).image_size for step in (0, 1, 4999, 5000, 5001)] == [128, 64, 64, 200, 256]
    for step in (1, 4999, 5001):
        ours, usual = plan(config, step), plan(PlanConfig(), step)
        assert torch.equal(ours.views.azimuth, usual.views.azimuth)


def test_one_size_of_reference_images_holds_for_all_stages():
    config = PlanConfig(reference_sizes=(128,))
    config.check()
    assert [config.reference_size(step) for step in (0, 4999, 5000, 9999)] == [128] * 4


def test_reference_pixels_may_be_of_any_frame():
    config = PlanConfig(reference_sizes=(128, 200), reference_rays=1000)
    ours = plan(config, 0, frames=5)
    assert ours.kind is StepKind.REFERENCE
    assert ours.frames.tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(ours.times, FrameTimes.even(5).tensor())
    assert torch.equal(ours.views.elevation, torch.full((5,), 10.0))
    assert (ours.num_pixels, ours.num_rays) == (5 * 128**2, 1000)
    for step in (1, 4999, 5001):
        distilled, usual = plan(config, step), plan(PlanConfig(), step)
        assert torch.equal(distilled.views.azimuth, usual.views.azimuth)
        assert distilled.num_rays == usual.num_rays == usual.num_pixels


def test_batches_have_the_structure_of_their_kind():
    for p in plans(PlanConfig(identical_views="identical"), 400):
        frames, views = p.frames.diff(), p.views
        steps = views.azimuth.diff()
        if p.kind is StepKind.TIMES:
            assert (frames == 2).all()  # floor(32 / 16)
        else:
            assert (frames == 0).all()
        if p.kind is StepKind.AZIMUTHS:
            torch.testing.assert_close(steps, steps[:1].expand(3), atol=1e-4, rtol=0)
            assert 5.0 <= float(steps[0]) <= 15.0 + 1e-4
        elif p.kind is not StepKind.INDEPENDENT:
            assert (steps == 0).all()
        if p.kind is not StepKind.INDEPENDENT:
            assert (views.elevation == views.elevation[0]).all()
        assert (views.distance == 2.0).all()
        assert ((views.elevation >= -10) & (views.elevation <= 60)).all()


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 15, 32, 33, 100])
def test_every_frame_can_be_drawn_for_clips_and_none_beyond(frames: int):
    clips = plans(PlanConfig(independent=0, azimuths=0, identical=0), 400 * max(1, frames // 16), frames)
    assert set(torch.cat([p.frames for p in clips]).tolist()) == set(range(frames))
    assert all(len(p.frames) == min(4, frames) for p in clips)


def test_upstream_never_reaches_the_last_frames():
    config = PlanConfig(independent=0, azimuths=0, identical=0, frame_reach="upstream")
    clips = plans(config, 800)
    assert max(int(p.frames.max()) for p in clips) == 29
    assert max(int(p.frames[0]) for p in clips) == 23


def test_clip_stride_fits_short_sequences():
    assert [clip_stride(1 / 16, n, 4) for n in (4, 15, 16, 31, 32, 64)] == [1, 1, 1, 1, 2, 4]
    assert clip_stride(1.0, 10, 4) == 3


def test_plans_repeat_and_differ_between_seeds():
    def key(p: StepPlan) -> tuple:
        return (p.kind, p.frames.tolist(), p.views.azimuth.tolist(), p.views.elevation.tolist())

    config = PlanConfig()
    again = [key(plan(config, s)) for s in range(20)]
    assert again == [key(plan(config, s)) for s in range(20)]
    other = [
        key(plan_step(config, s, FrameTimes.even(32), INPUT, ALL, step_generator(1, s, "plan", "cpu")))
        for s in range(20)
    ]
    assert again != other


def draws_of(config: PlanConfig, batches: int) -> torch.Tensor:
    """Elevations of batches of four views."""
    generator = torch.Generator().manual_seed(0)
    return torch.cat([draw_elevations(config, 4, generator) for _ in range(batches)])


def test_elevation_laws(golden_json):
    uniform = draws_of(PlanConfig(), 3000)
    assert float(uniform.mean()) == pytest.approx(25.0, abs=0.8)
    assert float(uniform.std()) == pytest.approx(70 / 12**0.5, abs=0.5)
    sphere = draws_of(PlanConfig(elevation_distribution="sphere"), 3000)
    sines = torch.sin(torch.deg2rad(sphere))
    assert float(sines.mean()) == pytest.approx((-0.17365 + 0.86603) / 2, abs=0.012)
    upstream = draws_of(PlanConfig(elevation_distribution="upstream"), 12000)
    recorded = golden_json("sampling_stats.json")["stats"]["mode1"]
    assert float(upstream.mean()) == pytest.approx(recorded["elevation_mean"], abs=0.6)
    assert float(upstream.std()) == pytest.approx(recorded["elevation_std"], abs=0.4)
    assert float((upstream > 41.81).float().mean()) == pytest.approx(recorded["frac_above_41_81"], abs=0.015)


def test_steps_follow_the_configured_law_of_elevations():
    only = PlanConfig(azimuths=0.0, times=0.0, identical=0.0)
    means = []
    for law in ("uniform", "sphere"):
        steps = plans(replace(only, elevation_distribution=law), 300)
        means.append(float(torch.cat([step.views.elevation for step in steps]).mean()))
    # A mean of 1200 draws has a standard deviation of 0.6 degrees.
    assert means == pytest.approx([25.0, 21.6], abs=1.7)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"views": (4,)}, "number of stages"),
        ({"stage_steps": (5, 10)}, "begin with 0"),
        ({"image_sizes": (0, 64)}, "at least 1"),
        ({"reference_sizes": (0, 64)}, "at least 1"),
        ({"reference_sizes": (64, 64, 64)}, "reference-sizes has 3 values for 2 stages"),
        ({"reference_rays": 0}, "reference-rays is 0: give at least 1"),
        ({"independent": -1.0}, "shares"),
    ],
)
def test_contradictions_are_named(change: dict, words: str):
    with pytest.raises(InputError, match=words):
        replace(PlanConfig(), **change).check()
