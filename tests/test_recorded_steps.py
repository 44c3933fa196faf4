"""Recorded training steps are training steps: with a recorder that computes where CUDA would replay."""

from __future__ import annotations

import copy

import pytest
import torch

from consistent4d_ns import recorded_steps
from consistent4d_ns.data.planning import StepKind
from consistent4d_ns.device import kernels
from consistent4d_ns.field.cascade import CascadeKPlanes
from consistent4d_ns.guidance.config import GuidanceConfig
from consistent4d_ns.method_configs import consistent4d_mini, preset
from consistent4d_ns.pipeline import Consistent4DPipeline
from consistent4d_ns.recorded_steps import GROWTH, WINDOW, Capacity, RecordedSteps, roomy
from consistent4d_ns.targets.config import HoldConfig, TargetsConfig
from consistent4d_ns.targets.stages import TargetStages
from tests.support.one_order import deterministic
from tests.support.recomputing import Recomputing
from tests.support.tiny import first_step, gradient_error, losses_and_gradients, tiny_pipeline, toy_folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Consistent4DPipeline:
    """Reference steps fit random pixels, and every third step target views."""
    pipeline = tiny_pipeline(toy_folder(tmp_path_factory.mktemp("data")))
    pipeline.datamanager.config.plan.reference_rays = 400
    return pipeline


@pytest.fixture
def recorder() -> Recomputing:
    return Recomputing()


@pytest.fixture
def recorded(plain: Consistent4DPipeline, recorder: Recomputing) -> Consistent4DPipeline:
    pipeline = copy.copy(plain)
    pipeline.recorded = RecordedSteps(plain.model, lambda: recorder)
    return pipeline


def assert_same(plain: Consistent4DPipeline, recorded: Consistent4DPipeline, draws) -> None:
    losses, gradients = losses_and_gradients(plain, draws)
    found, found_gradients = losses_and_gradients(recorded, draws)
    assert found.keys() == losses.keys()
    for name, loss in losses.items():
        torch.testing.assert_close(found[name], loss, rtol=1e-5, atol=1e-7, msg=name)
    assert gradient_error(found_gradients, gradients) < 1e-5


@pytest.mark.parametrize("kind", [StepKind.REFERENCE, StepKind.INDEPENDENT, StepKind.AZIMUTHS, StepKind.TIMES])
def test_a_recorded_step_is_the_step(plain, recorded, kind: StepKind):
    """Twice: what is recorded, then what is replayed."""
    draws = [d for d in map(plain.draw, range(200)) if d.plan.kind is kind][:2]
    for one in (*draws, draws[0]):
        assert_same(plain, recorded, one)


def test_a_recorded_step_may_have_no_loss_of_its_rendering(plain, recorded, monkeypatch):
    """As distillation steps of the mini preset have none: their loss is the guidance's alone."""
    none = preset(consistent4d_mini).pipeline.model.loss_weights
    monkeypatch.setattr(plain.config.model, "loss_weights", none)
    monkeypatch.setattr(plain.model.config, "loss_weights", none)
    draws = first_step(plain, StepKind.INDEPENDENT)
    expected, found = plain.rendered(draws), recorded.replayed(draws)
    assert found is not None
    assert expected.terms == found.terms == {}
    torch.testing.assert_close(found.rgb, expected.rgb)
    assert_same(plain, recorded, draws)


def test_recorded_steps_of_target_views(plain, recorded):
    held = TargetsConfig(hold=HoldConfig(steps=8, begin_step=0, views=3, rays=300, image_size=16))
    data = plain.datamanager
    recorded.targets = TargetStages(held, GuidanceConfig(), data, 0)
    kinds = set()
    for step in range(4):
        draws = recorded.draw(step)
        kinds.add(draws.plan.kind)
        plain_with_targets = copy.copy(recorded)
        plain_with_targets.recorded = None
        assert_same(plain_with_targets, recorded, draws)
    assert kinds == {StepKind.REFERENCE, StepKind.TARGETS}
    plain.model.occupancy.limit(None)


def test_more_samples_than_fit_are_rendered_again(plain, recorded, recorder, monkeypatch):
    """Nothing is left out when the grid fills up, and nothing is recorded anew when it empties a little."""
    draws = first_step(plain, StepKind.REFERENCE)
    occupied = plain.model.occupancy.occupied
    before, centres = occupied.clone(), plain.model.occupancy.centres().norm(dim=-1)
    monkeypatch.setattr(recorded_steps, "roomy", lambda count: count)
    try:
        for radius, recordings in ((0.3, 2), (0.6, 3), (2.0, 4), (0.6, 4)):
            occupied.copy_(centres < radius)
            assert_same(plain, recorded, draws)
            assert len(recorder.recorded) == recordings
    finally:
        occupied.copy_(before)


def test_steps_of_very_many_samples_are_not_recorded(plain, recorded, recorder, monkeypatch):
    draws = first_step(plain, StepKind.REFERENCE)
    monkeypatch.setattr(recorded_steps, "MOST_SAMPLES", 100)
    assert_same(plain, recorded, draws)
    assert len(recorder.recorded) == 1, "the rays alone"
    monkeypatch.undo()
    assert_same(plain, recorded, draws)
    assert len(recorder.recorded) == 2


def test_figures_are_those_of_the_step(plain, recorded):
    draws = first_step(plain, StepKind.REFERENCE)
    (_, _, expected), (_, _, found) = (side.training_step(draws) for side in (plain, recorded))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(float(value), rel=1e-5), name


def test_each_kind_of_step_is_recorded_once(plain, recorded, recorder):
    kinds = [recorded.draw(step).plan.kind for step in range(12)]
    for step in range(12):
        recorded.get_train_loss_dict(step)
    assert len(set(kinds)) > 2
    assert len({recorded.draw(step).plan.num_rays for step in range(12)}) == 3
    assert len(recorder.recorded) == 6, "rays and rendering of reference steps, two views, and clips of three"


def test_room_grows_at_once_and_shrinks_slowly():
    room = Capacity()
    assert room.follow(10_000)
    assert 10_500 <= room.size <= 10_500 * GROWTH + 256
    size = room.size
    assert not any(room.follow(count) for count in (9_000, 10_000, size))
    assert room.follow(size + 1)
    counts = [5_000] * (WINDOW - 2) + [6_000]
    assert not any(map(room.follow, counts))
    assert room.follow(5_000)
    assert room.size == roomy(6_000)
    assert not any(room.follow(5_900) for _ in range(3 * WINDOW))


def test_a_padded_list_keeps_its_samples(plain):
    rays, _ = plain.batch(first_step(plain, StepKind.INDEPENDENT).plan, None)
    samples = plain.model.sample(rays, None)
    roomy, tight = samples.padded(len(samples) + 50), samples.padded(len(samples) - 50)
    assert roomy.kept is not None
    assert float(roomy.kept.sum()) == len(samples) == len(roomy) - 50
    assert torch.equal(roomy.points[: len(samples)], samples.points)
    assert not roomy.points[len(samples) :].any()
    assert tight.kept is not None
    assert tight.kept.all()
    assert int(tight.offsets[-1]) == len(tight)


@pytest.mark.parametrize(("width", "recorded"), [(16, True), (1024, False)])
def test_wide_heads_are_not_recorded_where_sums_are_taken_in_one_order(plain, monkeypatch, width: int, recorded: bool):
    """Their products would be of as many samples as there is room for, which depends on the steps before."""
    monkeypatch.setattr(kernels, "usable", lambda tensor: True)
    model = copy.deepcopy(plain.model)
    model.field = CascadeKPlanes([(4, 4, 4, 2)] * 2, [2, 2], width)
    assert model.is_recordable
    with deterministic():
        assert model.is_recordable == recorded
