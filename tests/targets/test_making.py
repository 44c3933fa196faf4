"""Training in rounds of target views: what the banks hold, what a step fits, what is kept in checkpoints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from nerfstudio.engine.callbacks import TrainingCallbackAttributes, TrainingCallbackLocation

from consistent4d_ns.data.planning import StepKind
from consistent4d_ns.data.rays import view_rays
from consistent4d_ns.guidance.config import GuidanceConfig
from consistent4d_ns.pipeline import Consistent4DPipeline
from consistent4d_ns.targets.bank import TargetBank
from consistent4d_ns.targets.config import HoldConfig, ImagineConfig, TargetsConfig
from consistent4d_ns.targets.making import rendered
from consistent4d_ns.targets.silhouettes import background, cleaned
from consistent4d_ns.targets.stages import TargetStages
from tests.support.tiny import FRAMES, losses_and_gradients, tiny_config, tiny_pipeline, toy_folder

SIZE = 16
TARGETS = TargetsConfig(
    ImagineConfig(steps=4, views=5, sampling_steps=2, rays=200, image_size=SIZE),
    HoldConfig(steps=6, begin_step=10, views=7, rays=300, image_size=SIZE),
)
"""Imagined views at steps 0 to 3 and 4 to 7, held ones at 10 to 15."""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return toy_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture
def pipeline(data: Path) -> Consistent4DPipeline:
    made = tiny_pipeline(data)
    made.targets = TargetStages(TARGETS, GuidanceConfig(), made.datamanager, made.seed)
    return made


def bank_at(pipeline: Consistent4DPipeline, step: int) -> TargetBank | None:
    """The target views at a step."""
    pipeline.plan(step)
    return pipeline.targets.bank


def test_odd_steps_of_a_round_fit_target_views(pipeline: Consistent4DPipeline):
    kinds = [pipeline.plan(step).kind for step in range(17)]
    assert {kinds[step] for step in range(0, 17, 2)} == {StepKind.REFERENCE}
    assert {kinds[step] for step in (1, 3, 5, 7, 11, 13, 15)} == {StepKind.TARGETS}
    assert kinds[9].is_distilled
    assert pipeline.targets.bank is None
    assert [pipeline.plan(step).num_rays for step in (1, 11)] == [200, 300]


@pytest.mark.parametrize("step", [1, 5, 11])
def test_a_step_repeats_from_its_draws(pipeline: Consistent4DPipeline, step: int):
    draws = pipeline.draw(step)
    once, again = losses_and_gradients(pipeline, draws), losses_and_gradients(pipeline, draws)
    assert {"target_rgb_0", "target_rgb_1", "target_mask_0", "target_mask_1"} <= once[0].keys()
    assert not {"sds_0", "rgb_0", "sparsity", "normal_smoothness_2d"} & once[0].keys()
    for a, b in zip(once, again, strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert draws.guidance is None


def test_terms_by_hand(pipeline: Consistent4DPipeline):
    """Mean squared errors over the drawn pixels; the opacity counts where it is judged."""
    draws = pipeline.draw(1)
    bank, pixels = pipeline.targets.bank, draws.pixels
    assert bank is not None
    assert pixels is not None
    assert len(pixels) == 200
    rays = view_rays(bank.moments.views, bank.moments.times, SIZE)[pixels]
    losses, _ = losses_and_gradients(pipeline, draws)
    rendering = pipeline.model.render(rays, draws.rendering, with_normals=False)
    rgb = bank.rgb.movedim(1, -1).reshape(-1, 3)[pixels] / 255
    error = (rendering.rgb[1].detach() - rgb).square().mean()
    assert float(losses["target_rgb_1"].detach()) == pytest.approx(200 * float(error), rel=1e-5)
    judged = bank.judged.flatten()[pixels]
    error = (rendering.accumulation[0].detach().square() * judged).mean()
    assert float(losses["target_mask_0"].detach()) == pytest.approx(20 * float(error), rel=1e-5)


def test_imagined_views_are_the_prior_s(pipeline: Consistent4DPipeline):
    """The exact score's samples are the truth; opacity is judged in the background, as 0."""
    bank = bank_at(pipeline, 1)
    assert bank is not None
    truth = pipeline.guidance.truth(  # type: ignore[union-attr]
        bank.moments.views.elevation, bank.moments.views.azimuth, bank.moments.views.distance, bank.moments.frames
    )
    assert float((bank.rgb / 255 - truth).abs().max()) < 1e-2
    assert torch.equal(bank.judged, background(bank.rgb / 255, 0.04))
    assert int(bank.opacity[bank.judged].max()) == 0
    assert 0.1 < float(bank.judged.float().mean()) < 0.95


def test_held_views_are_the_object_s_own(pipeline: Consistent4DPipeline):
    bank = bank_at(pipeline, 10)
    assert bank is not None
    rgb, opacity = cleaned(*rendered(pipeline.model, bank.moments, SIZE), (0.5, 0.5), 0.1)
    assert float((bank.rgb / 255 - rgb).abs().max()) <= 0.5 / 255 + 1e-5
    assert torch.equal(bank.opacity, (255 * opacity).byte())
    assert bank.judged.all()
    assert set(bank.moments.frames.tolist()) <= set(range(FRAMES))


def test_a_bank_is_made_once_and_the_same_again(pipeline: Consistent4DPipeline, data: Path):
    first = bank_at(pipeline, 4)
    assert first is not None
    assert bank_at(pipeline, 5) is first
    pipeline.targets.bank = None
    again = bank_at(pipeline, 7)
    assert again is not None
    assert torch.equal(first.rgb, again.rgb)
    assert torch.equal(first.moments.views.azimuth, again.moments.views.azimuth)
    other = bank_at(pipeline, 10)
    assert other is not None
    assert other.begin == 10


def test_lines_say_how_many_views_are_made(
    pipeline: Consistent4DPipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("consistent4d_ns.targets.stages.SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr("consistent4d_ns.targets.making.MADE_AT_ONCE", 3)
    pipeline.plan(0)
    pipeline.plan(10)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Making 5 target views: imagined views, round 1 of 2."
    assert lines[1:3] == ["Target views: 3 of 5 made.", "Target views: 5 of 5 made."]
    assert lines[-1] == "Target views: 7 of 7 made."
    spent = pipeline.targets.seconds_making
    assert spent > 0
    pipeline.plan(11)
    assert pipeline.targets.seconds_making == spent


def test_checkpoints_hold_the_bank_while_its_round_lasts(pipeline: Consistent4DPipeline, data: Path):
    pipeline.draw(10)
    assert pipeline.targets.state_after(15) is None
    state = pipeline.targets.state_after(12)
    assert state is not None
    other = tiny_pipeline(data)
    other.targets = TargetStages(TARGETS, GuidanceConfig(), other.datamanager, other.seed)
    other.targets.load(state, "cpu")
    ours, theirs = pipeline.draw(13), other.draw(13)
    assert other.targets.bank is not None
    assert other.targets.bank.state_dict().keys() == state.keys() - {"options"}
    assert torch.equal(ours.plan.views.azimuth, theirs.plan.views.azimuth)
    assert ours.pixels is not None
    assert theirs.pixels is not None
    assert torch.equal(ours.pixels, theirs.pixels)
    assert all(name.startswith("_model.") for name in pipeline.state_dict())


def test_changed_options_of_stored_views_are_named(pipeline: Consistent4DPipeline, capsys: pytest.CaptureFixture[str]):
    pipeline.draw(10)
    state = pipeline.targets.state_after(12)
    capsys.readouterr()

    def resumed(**change: int) -> str:
        config = TargetsConfig(TARGETS.imagine, replace(TARGETS.hold, **change))
        stages = TargetStages(config, GuidanceConfig(), pipeline.datamanager, pipeline.seed)
        stages.load(state, "cpu")
        assert stages.bank is not None
        assert len(stages.bank.moments) == 7
        again = stages.state_after(12)
        assert again is not None
        assert again["options"]["hold.views"] == 7
        return capsys.readouterr().out

    assert resumed() == resumed(rays=20) == ""
    assert resumed(views=9, image_size=32) == (
        "The stored target views are kept until step 16 (held views), without the new targets.hold.views, "
        "targets.hold.image-size.\n"
    )


def test_nothing_is_saved_before_a_round(pipeline: Consistent4DPipeline):
    pipeline.draw(8)
    assert pipeline.targets.state_after(9) is None
    pipeline.draw(3)
    assert pipeline.targets.state_after(3) is None, "the next round makes its own"


def test_while_distillation_is_paused_only_held_views_are_fitted(pipeline: Consistent4DPipeline):
    pipeline.steer(pause_distillation=True)
    pipeline.adopt_steering(1)
    assert {pipeline.plan(step).kind for step in range(10)} == {StepKind.REFERENCE}
    assert pipeline.targets.bank is None
    assert pipeline.plan(11).kind is StepKind.TARGETS


def test_holding_needs_no_prior(data: Path):
    pipeline = tiny_pipeline(data, priors=False)
    held = TargetsConfig(hold=TARGETS.hold)
    pipeline.targets = TargetStages(held, GuidanceConfig(), pipeline.datamanager, pipeline.seed)
    assert pipeline.plan(11).kind is StepKind.TARGETS
    assert pipeline.plan(9).kind is StepKind.REFERENCE


@pytest.mark.parametrize("steps", [0, 4])
def test_imagining_keeps_the_prior_s_decoder(data: Path, monkeypatch: pytest.MonkeyPatch, steps: int):
    config, asked = tiny_config(data).pipeline, []
    config.guidance = GuidanceConfig(kind="zero123", previews=False)
    config.targets.imagine.steps = steps
    monkeypatch.setattr("consistent4d_ns.guidance.loading.build_guidance", lambda prior, *_: asked.append(prior))
    config.setup(device="cpu", test_mode="val")
    assert [prior.previews for prior in asked] == [steps > 0]
    assert not config.guidance.previews


@pytest.mark.parametrize("previews", [False, True])
def test_the_decoder_is_freed_after_the_last_round(
    pipeline: Consistent4DPipeline, monkeypatch: pytest.MonkeyPatch, previews: bool
):
    freed, current = [], 0
    pipeline.config.guidance.previews = previews
    monkeypatch.setattr(pipeline.guidance, "end_sampling", lambda: freed.append(current))
    callbacks = pipeline.get_training_callbacks(cast(TrainingCallbackAttributes, None))
    for current in range(10):
        for callback in callbacks:
            callback.run_callback_at_location(current, TrainingCallbackLocation.AFTER_TRAIN_ITERATION)
    assert freed == ([] if previews else [7, 8, 9])


def test_the_input_view_weighs_more_while_views_are_held(pipeline: Consistent4DPipeline):
    held = pipeline.targets.rounds[-1]
    pipeline.targets.rounds = (*pipeline.targets.rounds[:-1], replace(held, rgb_factor=4.0))
    pipeline.steer(rgb=0.5)
    pipeline.adopt_steering(0)
    before, during = (pipeline.resolve_settings(step).loss_weights for step in (held.begin - 1, held.begin))
    assert (before["rgb_1"], during["rgb_1"]) == (250.0, 1000.0)
    assert (before["mask_1"], during["mask_1"]) == (50.0, 50.0)


def test_the_log_has_weights_and_the_learning_rate(pipeline: Consistent4DPipeline):
    _, _, metrics = pipeline.training_step(pipeline.draw(13))
    assert float(metrics["weight/target_rgb_0"]) == 200
    assert float(metrics["weight/target_mask_1"]) == 20
    assert float(metrics["schedule/learning_rate_factor"]) == pytest.approx(0.1**0.5)
    assert float(metrics["schedule/image_size"]) == SIZE
    assert float(metrics["schedule/rays"]) == 300
