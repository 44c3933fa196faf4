"""Steering: nothing changes untouched, and what is asked for reaches exactly the next step."""

from __future__ import annotations

import dataclasses
import math
import time
from threading import Thread
from typing import Any

import pytest
import torch

from consistent4d_ns.data.planning import StepKind
from consistent4d_ns.guidance.base import GuidanceDraws
from consistent4d_ns.pipeline import Consistent4DPipeline
from consistent4d_ns.steering import Steering
from tests.support.tiny import first_step, tiny_pipeline, toy_folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture
def pipeline(data) -> Consistent4DPipeline:
    return tiny_pipeline(data)


def step_of(pipeline: Consistent4DPipeline, kind: StepKind) -> int:
    return first_step(pipeline, kind).plan.step


def test_untouched_nothing_changes(pipeline):
    """Weights are the configured ones bit by bit, and so is everything that is drawn."""
    weights = pipeline.config.model.loss_weights
    settings = pipeline.resolve_settings(7)
    for name in ("rgb_0", "sds_1", "consistency_0", "orientation", "normal_smoothness_3d"):
        assert settings.loss_weights[name] == weights.at(name, 7)
    guidance = pipeline.config.guidance
    assert settings.guidance_scale == guidance.scale
    assert settings.noise_range == (guidance.min_noise(7), guidance.max_noise(7))
    before = [pipeline.get_train_loss_dict(step)[1] for step in range(4)]
    pipeline.steer(sds=2.0, rgb=0.5, pause_distillation=True, noise_range=(0.1, 0.2), guidance_scale=1.0)
    pipeline.get_train_loss_dict(4)
    pipeline.steer(**vars(Steering()))
    after = [pipeline.get_train_loss_dict(step)[1] for step in range(4)]
    for a, b in zip(before, after, strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_factors_reach_losses_and_log(pipeline):
    step = step_of(pipeline, StepKind.AZIMUTHS)
    _, plain, figures = pipeline.get_train_loss_dict(step)
    pipeline.steer(sds=3.0, consistency=0.0)
    _, steered, logged = pipeline.get_train_loss_dict(step)
    for name, loss in plain.items():
        factor = {"sds_0": 3.0, "sds_1": 3.0, "consistency_0": 0.0, "consistency_1": 0.0}.get(name, 1.0)
        assert float(steered[name].detach()) == pytest.approx(float(loss.detach()) * factor, rel=1e-5), name
        assert float(logged[f"weight/{name}"]) == pytest.approx(float(figures[f"weight/{name}"]) * factor), name
        assert torch.equal(logged[f"term/{name}"], figures[f"term/{name}"])


def test_changes_wait_for_the_next_step_and_are_printed(pipeline, capsys):
    pipeline.get_train_loss_dict(0)
    pipeline.steer(mask=2.0)
    assert pipeline.steering == Steering()
    assert pipeline.settings.loss_weights["mask_0"] == pipeline.config.model.loss_weights.at("mask_0", 0)
    pipeline.get_train_loss_dict(1)
    assert pipeline.steering == Steering(mask=2.0)
    pipeline.get_train_loss_dict(2)
    assert capsys.readouterr().out.count("From step 1 on: mask 1.0 -> 2.0") == 1


def test_a_paused_prior_leaves_the_input_view(pipeline):
    kinds = [pipeline.draw(step).plan.kind for step in range(30)]
    pipeline.steering = Steering(pause_distillation=True)
    assert {pipeline.draw(step).plan.kind for step in range(30)} == {StepKind.REFERENCE}
    assert pipeline.draw(1).guidance is None
    pipeline.steering = Steering()
    assert [pipeline.draw(step).plan.kind for step in range(30)] == kinds


def test_noise_is_drawn_from_the_fixed_range(pipeline):
    pipeline.steering = Steering(noise_range=(0.3, 0.35))
    steps = [step for step in range(40) if pipeline.draw(step).guidance is not None]
    drawn = torch.cat([pipeline.draw(step).guidance.timesteps.flatten() for step in steps])
    length = pipeline.guidance.num_timesteps
    assert int(0.3 * length) <= int(drawn.min()) < int(drawn.max()) <= int(0.35 * length)
    _, _, figures = pipeline.training_step(pipeline.draw(steps[0]))
    assert float(figures["schedule/min_timestep"]) == int(0.3 * length)


def test_the_guidance_scale_reaches_the_prior(pipeline, monkeypatch):
    seen: list[float] = []
    loss = pipeline.guidance.loss

    def spy(images, poses, frames, draws: GuidanceDraws, scale: float):
        seen.append(scale)
        return loss(images, poses, frames, draws, scale)

    monkeypatch.setattr(pipeline.guidance, "loss", spy)
    step = step_of(pipeline, StepKind.INDEPENDENT)
    pipeline.get_train_loss_dict(step)
    pipeline.steer(guidance_scale=1.5)
    _, _, figures = pipeline.get_train_loss_dict(step)
    assert seen == [pipeline.config.guidance.scale, 1.5]
    assert float(figures["schedule/guidance_scale"]) == 1.5


@pytest.mark.parametrize("kind", [StepKind.REFERENCE, StepKind.AZIMUTHS])
def test_a_step_repeats_from_its_draws_whatever_is_steered_by_then(pipeline, kind: StepKind):
    draws = first_step(pipeline, kind)
    _, losses, figures = pipeline.training_step(draws)
    pipeline.steer(sds=3.0, rgb=0.5, mask=0.0, consistency=2.0, guidance_scale=1.0, noise_range=(0.1, 0.2))
    pipeline.adopt_steering(draws.plan.step)
    _, again, logged = pipeline.training_step(draws)
    assert losses.keys() == again.keys()
    assert all(torch.equal(losses[name], again[name]) for name in losses)
    assert all(torch.equal(figures[name], logged[name]) for name in figures)
    assert pipeline.settings == draws.settings
    _, steered, _ = pipeline.training_step(pipeline.draw(draws.plan.step))
    assert any(not torch.equal(losses[name], steered[name]) for name in losses)


def test_changes_from_several_threads_are_all_kept(pipeline, monkeypatch):
    replace = dataclasses.replace

    def slowly(*arguments: Any, **changes: Any) -> Any:
        time.sleep(0.02)
        return replace(*arguments, **changes)

    monkeypatch.setattr(dataclasses, "replace", slowly)
    wanted: dict[str, Any] = {"rgb": 2.0, "mask": 3.0, "sds": 4.0, "consistency": 0.5}
    threads = [Thread(target=pipeline.steer, kwargs={name: value}) for name, value in wanted.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pipeline.next_steering == Steering(**wanted)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"sds": 50.0}, {"sds": 5.0}),
        ({"rgb": -3.0}, {"rgb": 0.0}),
        ({"mask": math.nan, "consistency": math.inf}, {}),
        ({"guidance_scale": -1.0}, {"guidance_scale": 0.0}),
        ({"guidance_scale": 1e9}, {"guidance_scale": 100.0}),
        ({"guidance_scale": math.nan}, {}),
        ({"noise_range": (0.9, 0.1)}, {"noise_range": (0.1, 0.9)}),
        ({"noise_range": (-4.0, 7.0)}, {"noise_range": (0.02, 0.98)}),
        ({"noise_range": (0.1, math.nan)}, {}),
    ],
)
def test_whatever_the_viewer_is_sent_stays_within_the_limits(pipeline, asked, expected):
    pipeline.steer(**asked)
    step = step_of(pipeline, StepKind.AZIMUTHS)
    _, losses, _ = pipeline.get_train_loss_dict(step)
    assert pipeline.steering == Steering(**expected)
    assert all(torch.isfinite(loss) for loss in losses.values())


@pytest.mark.parametrize("value", ["a", "2", 10**400, float("nan"), [1.0], object(), 1j])
def test_what_is_no_finite_number_leaves_the_configured_value(value: Any) -> None:
    unchanged = Steering()
    assert Steering(sds=value, rgb=value, guidance_scale=value) == unchanged
    assert Steering(noise_range=value) == unchanged
    assert Steering(noise_range=(0.1, value)) == unchanged


@pytest.mark.parametrize("noise_range", [(0.1,), (0.1, 0.2, 0.3), (), 0.5])
def test_a_noise_range_that_is_no_pair_leaves_the_configured_one(noise_range: Any) -> None:
    assert Steering(noise_range=noise_range).noise_range is None
