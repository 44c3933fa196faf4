"""The training step: replayable, right in float64 too, and free of priors in what it saves."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch

from consistent4d_ns.data.planning import StepKind, reference_plan
from consistent4d_ns.errors import InputError
from consistent4d_ns.method_configs import consistent4d, preset
from consistent4d_ns.pipeline import Consistent4DPipeline
from tests.support.tiny import (
    first_step,
    gradient_error,
    losses_and_gradients,
    map_tensors,
    tiny_config,
    tiny_pipeline,
    toy_folder,
)

DISTILLED = (StepKind.INDEPENDENT, StepKind.AZIMUTHS, StepKind.TIMES)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def pipeline(data) -> Consistent4DPipeline:
    return tiny_pipeline(data)


def doubled(value: Any) -> Any:
    return map_tensors(value, lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)


def in_double(pipeline: Consistent4DPipeline) -> Consistent4DPipeline:
    other = copy.deepcopy(pipeline).double()
    other.interpolator = dataclasses.replace(other.interpolator, net=other.interpolator.net.double())
    return other


@pytest.mark.parametrize("kind", [StepKind.REFERENCE, *DISTILLED])
def test_a_step_repeats_from_its_draws(pipeline, kind: StepKind):
    draws = first_step(pipeline, kind)
    once, again = losses_and_gradients(pipeline, draws), losses_and_gradients(pipeline, draws)
    for a, b in zip(once, again, strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("kind", [StepKind.REFERENCE, *DISTILLED])
def test_a_step_agrees_with_float64(pipeline, kind: StepKind):
    draws = first_step(pipeline, kind)
    losses, gradients = losses_and_gradients(pipeline, draws)
    exact_losses, exact_gradients = losses_and_gradients(in_double(pipeline), doubled(draws))
    assert losses.keys() == exact_losses.keys()
    for name, loss in losses.items():
        assert float(loss) == pytest.approx(float(exact_losses[name]), rel=1e-3), name
    assert gradient_error(gradients, exact_gradients) < 1e-2


@pytest.fixture(scope="module")
def of_pixels(data) -> Consistent4DPipeline:
    """A pipeline whose reference steps fit random pixels."""
    made = tiny_pipeline(data)
    made.datamanager.config.plan.reference_rays = 400
    return made


def test_a_step_of_pixels_repeats_from_its_draws_and_agrees_with_float64(of_pixels):
    draws = of_pixels.draw(0)
    losses, gradients = losses_and_gradients(of_pixels, draws)
    again, _ = losses_and_gradients(of_pixels, of_pixels.draw(0))
    assert all(torch.equal(losses[name], again[name]) for name in losses)
    assert {"rgb_0", "rgb_1", "mask_0", "mask_1", "orientation", "opaqueness"} <= losses.keys()
    assert "normal_smoothness_2d" not in losses, "random pixels have no neighbours"
    exact_losses, exact_gradients = losses_and_gradients(in_double(of_pixels), doubled(draws))
    for name, loss in losses.items():
        assert float(loss) == pytest.approx(float(exact_losses[name]), rel=1e-3), name
    assert gradient_error(gradients, exact_gradients) < 1e-2


def test_pixels_estimate_what_whole_frames_cost(of_pixels):
    """The mean over all pixels of all frames is the mean of the whole frames."""
    data = of_pixels.datamanager
    draws = of_pixels.draw(0)
    every = torch.arange(draws.plan.num_pixels)
    jitter = torch.full((len(every),), 0.5)
    rendering = dataclasses.replace(draws.rendering, jitter=jitter)
    losses, _ = losses_and_gradients(of_pixels, dataclasses.replace(draws, pixels=every, rendering=rendering))
    whole = []
    for frame in range(data.num_frames):
        plan = reference_plan(0, torch.tensor([frame]), data.frame_times, data.input_view, draws.plan.image_size)
        one = dataclasses.replace(draws.rendering, jitter=jitter[: plan.num_rays])
        whole.append(losses_and_gradients(of_pixels, dataclasses.replace(draws, plan=plan, pixels=None, rendering=one)))
    for name in ("rgb_0", "rgb_1", "mask_0", "mask_1"):
        mean = sum(float(one[0][name]) for one in whole) / len(whole)
        assert float(losses[name]) == pytest.approx(mean, rel=1e-3), name


def test_normal_offsets_are_drawn_where_a_loss_asks_for_them(pipeline, monkeypatch):
    asked = pipeline.draw(0).rendering
    assert len(asked.normal_offsets) > 0
    monkeypatch.setattr(pipeline.config.model.loss_weights, "normal_smoothness_3d", 0.0)
    left_out = pipeline.draw(0).rendering
    assert len(left_out.normal_offsets) == 0
    assert torch.equal(left_out.jitter, asked.jitter)


def test_each_kind_has_its_terms(pipeline):
    everywhere = {"orientation", "normal_smoothness_3d", "normal_smoothness_2d", "opaqueness", "depth_variance"}
    expected = {
        StepKind.REFERENCE: {"rgb_0", "rgb_1", "mask_0", "mask_1"},
        StepKind.INDEPENDENT: {"sds_0", "sds_1", "sparsity"},
        StepKind.AZIMUTHS: {"sds_0", "sds_1", "sparsity", "consistency_0", "consistency_1"},
        StepKind.TIMES: {"sds_0", "sds_1", "sparsity", "consistency_0", "consistency_1"},
    }
    for kind, names in expected.items():
        losses, gradients = losses_and_gradients(pipeline, first_step(pipeline, kind))
        assert losses.keys() == names | everywhere
        assert all(torch.isfinite(value) for value in losses.values())
        assert all(torch.isfinite(g).all() for g in gradients.values())
        assert len(gradients) == len(list(pipeline.model.field.parameters()))


def test_mixed_precision_of_the_trainer_changes_nothing(pipeline):
    for step in range(4):
        _, expected, _ = pipeline.get_train_loss_dict(step)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            _, losses, _ = pipeline.get_train_loss_dict(step)
        assert all(torch.equal(losses[name], expected[name]) for name in expected)


def test_draws_follow_from_the_step_alone(data):
    """A resumed run continues with what an uninterrupted run would have drawn."""
    one, other = tiny_pipeline(data), tiny_pipeline(data)
    for step in (7, 3, 150):
        a, b = one.draw(step), other.draw(step)
        assert a.plan.kind == b.plan.kind
        assert torch.equal(a.rendering.jitter, b.rendering.jitter)
        assert (a.guidance is None) == (b.guidance is None)
    assert one.draw(99).plan.image_size == 16
    assert one.draw(100).plan.image_size == 32


def test_noise_levels_that_cross_are_refused_before_anything_is_loaded(tmp_path):
    config = preset(consistent4d)
    config.pipeline.datamanager.data = tmp_path / "nothing"
    config.pipeline.guidance.max_noise.end = 0.15
    with pytest.raises(InputError, match=r"noise levels .* from training step 1765 on"):
        config.pipeline.setup(device="cpu", test_mode="val")


def test_figures_hold_every_term_and_weight_whatever_the_step(pipeline):
    for kind in (StepKind.AZIMUTHS, StepKind.REFERENCE):
        _, _, metrics = pipeline.training_step(first_step(pipeline, kind))
    for name in ("rgb_1", "mask_0", "sds_1", "consistency_0", "orientation"):
        assert f"term/{name}" in metrics
        assert f"weight/{name}" in metrics
    assert float(metrics["weight/sds_1"]) == pytest.approx(0.2)
    assert {"psnr", "schedule/image_size", "schedule/max_timestep", "occupied_share"} <= metrics.keys()


def test_no_prior_in_what_is_saved(pipeline):
    state = pipeline.state_dict()
    assert all(name.startswith("_model.") for name in state)
    own = sum(p.numel() for p in pipeline.model.field.parameters()) + 2 * pipeline.model.occupancy.values.numel()
    assert sum(t.numel() for t in state.values()) == own


def test_priors_are_loaded_only_for_training(data, monkeypatch):
    monkeypatch.setattr(Consistent4DPipeline, "load_priors", lambda *_: pytest.fail("loaded priors"))
    for mode in ("test", "inference"):
        tiny_config(data).pipeline.setup(device="cpu", test_mode=mode)


def test_without_priors_only_the_input_view_is_fitted(data):
    pipeline = tiny_pipeline(data, priors=False)
    assert {pipeline.draw(step).plan.kind for step in range(20)} == {StepKind.REFERENCE}


def test_without_guidance_clips_are_kept_consistent(data):
    pipeline = tiny_pipeline(data)
    pipeline.guidance = None
    kinds = {pipeline.draw(step).plan.kind for step in range(60)}
    assert kinds == {StepKind.REFERENCE, StepKind.AZIMUTHS, StepKind.TIMES}


def test_a_checkpoint_of_another_shape_is_refused(data, pipeline):
    config = tiny_config(data)
    config.pipeline.model.grid_resolutions = ((8, 8, 8, 4), (12, 12, 12, 4))
    other = config.pipeline.setup(device="cpu", test_mode="test")
    with pytest.raises(InputError, match=r"other shapes.*config\.yml"):
        other.load_pipeline(pipeline.state_dict(), 10)


def test_a_saved_state_comes_back_exactly(data, pipeline, tmp_path):
    torch.save({"pipeline": pipeline.state_dict()}, tmp_path / "x.ckpt")
    other = tiny_config(data).pipeline.setup(device="cpu", test_mode="test")
    other.load_pipeline(torch.load(tmp_path / "x.ckpt", weights_only=True)["pipeline"], 10)
    for name, value in pipeline.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)


def test_evaluation_loss_needs_no_draws(pipeline):
    _, losses, metrics = pipeline.get_eval_loss_dict(3)
    assert {"rgb_0", "rgb_1", "mask_0", "mask_1"} <= losses.keys()
    assert torch.isfinite(metrics["psnr"])
    assert pipeline.training


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: setattr(c.pipeline.model, "channels", (8, 8, 8)), "channels"),
        (lambda c: setattr(c.pipeline.model.loss_weights, "rgb", (1.0, 2.0, 3.0)), r"loss-weights\.rgb"),
        (lambda c: setattr(c.pipeline.datamanager.plan, "views", (4,)), "number of stages"),
    ],
)
def test_contradicting_options_are_named(data, change, words: str):
    config = tiny_config(data)
    change(config)
    with pytest.raises(InputError, match=words):
        config.pipeline.setup(device="cpu", test_mode="val")


@pytest.mark.parametrize("size", [16, 32, 48])
def test_reference_targets_keep_the_frame_s_colours_at_any_size(pipeline, size: int):
    """Shrunk or enlarged, the target has the frame's mean and the object where it was."""
    data = pipeline.datamanager
    draws = first_step(pipeline, StepKind.REFERENCE)
    rays, batch = data.batch(dataclasses.replace(draws.plan, image_size=size))
    frame = data.reference_images()[draws.plan.frames][0]
    target = batch["image"].view(size, size, 3).movedim(-1, 0)
    assert len(rays) == size**2 == len(batch["alpha"])
    assert float((target.mean((1, 2)) - frame.mean((1, 2))).abs().max()) < 5e-3
    small = torch.nn.functional.interpolate(target[None], (8, 8), mode="area")
    assert float((small - torch.nn.functional.interpolate(frame[None], (8, 8), mode="area")).abs().max()) < 0.05
