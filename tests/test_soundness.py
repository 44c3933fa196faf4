"""Values that are not finite, objects that vanish or become fog, too little memory: noticed, said and survived."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from consistent4d_ns.cli.demo import train
from consistent4d_ns.data.planning import StepKind
from consistent4d_ns.device.updates import FiniteUpdates
from consistent4d_ns.errors import InputError
from consistent4d_ns.files.checkpoints import list_checkpoints, newest_whole, read_checkpoint
from consistent4d_ns.guidance.exact import ExactScoreGuidance
from consistent4d_ns.pipeline import Consistent4DPipeline
from consistent4d_ns.record.history import read_history
from consistent4d_ns.record.report import TrainingReport, warn_about_failures
from consistent4d_ns.soundness import FIRST_LOOK, GROUPS, Soundness, group_of
from consistent4d_ns.targets.config import ImagineConfig
from consistent4d_ns.trainer import Consistent4DTrainer
from consistent4d_ns.trainer_config import Consistent4DTrainerConfig
from tests.support.tiny import attach_priors, tiny_config, toy_folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture
def config(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Consistent4DTrainerConfig:
    """A training of twelve steps that draws no pictures."""
    monkeypatch.setattr(TrainingReport, "finish", lambda self, step: self.save_history())
    made = tiny_config(data)
    made.output_dir, made.vis, made.max_num_iterations, made.timestamp = tmp_path / "out", "tensorboard", 12, "a"
    made.steps_per_save, made.steps_per_eval_image = 3, 0
    return made


def poison(monkeypatch: pytest.MonkeyPatch, steps: range | set[int], value: float = math.nan) -> None:
    """Make the losses of some training steps undefined, and with them every gradient."""
    original = Consistent4DPipeline.get_train_loss_dict

    def get_train_loss_dict(self: Any, step: int) -> Any:
        outputs, losses, metrics = original(self, step)
        factor = value if step in steps else 1.0
        return outputs, {name: loss * factor for name, loss in losses.items()}, metrics

    monkeypatch.setattr(Consistent4DPipeline, "get_train_loss_dict", get_train_loss_dict)


def words(captured: Any) -> str:
    return " ".join((captured.out + captured.err).split())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_steps_without_finite_gradients_change_nothing(config, monkeypatch, capsys, value: float):
    poison(monkeypatch, {4, 5, 8}, value)
    step, changes = Consistent4DTrainer.train_iteration, []

    def train_iteration(self: Any, current: int) -> Any:
        before = [p.detach().clone() for p in self.pipeline.model.field.parameters()]
        result = step(self, current)
        after = list(self.pipeline.model.field.parameters())
        changes.append(not all(map(torch.equal, before, after)))
        return result

    monkeypatch.setattr(Consistent4DTrainer, "train_iteration", train_iteration)
    trainer = train(config)
    assert [index for index, changed in enumerate(changes) if not changed] == [4, 5, 8]
    pipeline: Any = trainer.pipeline
    assert int(pipeline.soundness.skipped) == 3
    said = words(capsys.readouterr())
    assert "warning: step 4: training steps skipped so far, because a gradient was not finite: 1 (1 of" in said
    state = read_checkpoint(config.get_checkpoint_dir() / "step-000000011.ckpt")
    (first, *_) = state["optimizers"]["field"]["state"].values()
    assert first["step"] == 12 - 3, "the optimiser's own count leaves them out"
    assert len(read_history(config.get_base_dir() / "losses.jsonl")) == 12


def test_finite_gradients_are_used_to_the_last_bit():
    """With `found_inf` or without, and an optimiser that cannot read it loses its gradients instead."""
    updated = []
    for guarded, fused in ((False, True), (True, True), (False, False), (True, False)):
        torch.manual_seed(0)
        parameter = torch.nn.Parameter(torch.randn(100))
        optimizer = torch.optim.Adam([parameter], lr=0.1, fused=fused)
        guard = FiniteUpdates(optimizer) if guarded else None
        for step in range(5):
            parameter.grad = torch.randn(100)
            if guard is not None and step == 3:
                kept, parameter.grad = parameter.grad, torch.full((100,), math.inf)
                before = parameter.detach().clone()
                optimizer.step()
                assert torch.equal(parameter, before)
                assert guard.found == 1.0
                parameter.grad = kept
            optimizer.step()
        updated.append(parameter.detach())
    assert torch.equal(updated[0], updated[1])
    assert torch.equal(updated[2], updated[3])


def test_a_scaler_of_gradients_keeps_its_own_account():
    """It sets `found_inf` itself before a step, and removes it after."""
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.Adam([parameter], fused=True)
    guard = FiniteUpdates(optimizer)
    scaler = torch.amp.GradScaler("cpu")
    for gradient, found in ((1.0, 0.0), (math.nan, 1.0), (1.0, 0.0)):
        optimizer.zero_grad()
        scaler.scale((parameter * gradient).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        assert guard.found == found
    assert not hasattr(optimizer, "found_inf")
    assert optimizer.state[parameter]["step"] == 2


def test_a_training_that_cannot_go_on_ends_with_one_sentence(config, monkeypatch):
    poison(monkeypatch, range(5, 100))
    config.max_skipped_steps, config.max_num_iterations = 4, 100
    with pytest.raises(InputError) as raised:
        train(config)
    message = str(raised.value)
    assert "\n" not in message
    assert "4 steps of the input view in a row had no finite gradient and were skipped" in message
    assert "lower --optimizers.field.optimizer.lr" in message
    last = newest_whole(config.get_checkpoint_dir())
    assert last is not None
    assert message.endswith(f"The last checkpoint is {last}.")
    assert read_checkpoint(last)["step"] == 8


class BrokenGuidance(ExactScoreGuidance):
    """A prior whose predictions are NaN from some point on, of which, as of Zero123, only the number is told."""

    broken = True

    def loss(self, *arguments: Any, **options: Any) -> Any:
        losses = super().loss(*arguments, **options)
        self.undefined_predictions = self.undefined_predictions + 3 * self.broken
        return losses * (0.0 if self.broken else 1.0)

    def sample(self, *arguments: Any, **options: Any) -> Any:
        return super().sample(*arguments, **options) * math.nan


def attach_broken_prior(pipeline: Any, *_: Any) -> None:
    attach_priors(pipeline)
    prior = pipeline.guidance
    pipeline.guidance = BrokenGuidance(prior.truth, prior.condition, latent_size=16)


def test_a_prior_that_gives_no_numbers_is_named(config, monkeypatch):
    """Steps that fit the input view lie between those that are skipped, and count for themselves."""
    monkeypatch.setattr(Consistent4DPipeline, "load_priors", attach_broken_prior)
    config.pipeline.guidance.kind, config.max_skipped_steps = "zero123", 3
    with pytest.raises(InputError, match="3 steps of distilled views in a row") as raised:
        train(config)
    assert "the prior gave 9 predictions that are not finite: try --pipeline.guidance.precision" in str(raised.value)


def test_imagined_views_that_are_no_numbers_are_refused(config, monkeypatch):
    monkeypatch.setattr(Consistent4DPipeline, "load_priors", attach_broken_prior)
    config.pipeline.targets.imagine = ImagineConfig(steps=4, views=4, sampling_steps=2, rays=100, image_size=8)
    config.pipeline.guidance.kind = "zero123"
    with pytest.raises(InputError, match="the views that the prior imagines hold values that are not finite"):
        train(config)
    assert not list_checkpoints(config.get_checkpoint_dir())


def test_frames_that_hold_no_numbers_are_noticed(config, monkeypatch):
    setup = Consistent4DTrainer.setup

    def setup_with_nan(self: Any, *arguments: Any) -> None:
        setup(self, *arguments)
        self.pipeline.datamanager.frames[:, 0, 12:20, 12:20] = math.nan

    monkeypatch.setattr(Consistent4DTrainer, "setup", setup_with_nan)
    config.max_skipped_steps = 5
    with pytest.raises(InputError, match=r"not finite: rgb_0, rgb_1; check the frames"):
        train(config)


def judged(expected: float, opacities: dict[StepKind, float], steps: int = 400) -> list[str]:
    """What is said of an object with some mean opacities."""
    soundness, said = Soundness("cpu", expected), []
    for step in range(steps):
        for kind, opacity in opacities.items():
            soundness.after_step(kind, torch.tensor(0.0), torch.tensor(opacity))
        figures = soundness.look(step)
        assert figures is not None
        said += soundness.warnings(step, figures)
    return said


def test_an_object_that_vanishes_or_becomes_fog_is_said_once():
    reference, novel = StepKind.REFERENCE, StepKind.AZIMUTHS
    assert judged(0.3, {reference: 0.3, novel: 0.35}) == []
    (vanished,) = judged(0.3, {reference: 0.001, novel: 0.0})
    assert "the object has all but vanished: its mean opacity in the input view is 0.00" in vanished
    (fog,) = judged(0.3, {reference: 0.3, novel: 0.99})
    assert "fog fills the space around the object: the mean opacity of distilled views is 0.9" in fog
    assert judged(0.9, {reference: 0.95, novel: 0.99}) == [], "an object that fills the frames is none"
    assert judged(0.3, {reference: math.nan}) == []
    assert judged(0.3, {reference: 0.001}, FIRST_LOOK) == []


def test_every_kind_of_step_is_counted_in_one_group():
    assert {group_of(kind) for kind in StepKind} == set(range(len(GROUPS)))


def test_a_collapsed_field_is_said_while_training(config, monkeypatch, capsys):
    """Where no cell is left, all are sampled again; a step without samples is none that fails."""
    setup = Consistent4DTrainer.setup

    def setup_without_density(self: Any, *arguments: Any) -> None:
        setup(self, *arguments)
        self.pipeline.model.occupancy.occupied.zero_()
        monkeypatch.setattr(
            type(self.pipeline.model.field), "density", lambda _, points, times: points.new_zeros(2, len(points))
        )

    monkeypatch.setattr(Consistent4DTrainer, "setup", setup_without_density)
    monkeypatch.setattr("consistent4d_ns.soundness.FIRST_LOOK", 5)
    monkeypatch.setattr("consistent4d_ns.soundness.VANISHED", 10.0)
    trainer = train(config)
    assert "the object has all but vanished" in words(capsys.readouterr())
    pipeline: Any = trainer.pipeline
    assert pipeline.model.occupancy.occupied.all()


OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of")


@pytest.mark.parametrize(
    ("place", "phase", "option"),
    [
        (
            "consistent4d_ns.pipeline.Consistent4DPipeline.distillation_terms",
            "distilling 2 views of 16 pixels",
            "views 1",
        ),
        ("consistent4d_ns.datamanager", "fitting the input view", "--pipeline.datamanager.plan.reference-rays 256"),
        ("consistent4d_ns.targets.stages.TargetStages.make", "making target views", "targets.imagine.image-size 16"),
        ("consistent4d_ns.targets.stages.TargetStages.batch", "fitting target views", "targets.imagine.rays 256"),
        ("consistent4d_ns.trainer.Trainer.eval_iteration", "rendering an image for the log", "steps-per-eval-image 0"),
        ("consistent4d_ns.trainer.Trainer.setup", "loading the prior", "consistent4d-mini"),
    ],
)
def test_too_little_memory_names_phase_and_options(config, monkeypatch, place: str, phase: str, option: str):
    """The last checkpoint is kept, or one of the latest complete step is written."""
    monkeypatch.setattr(Consistent4DPipeline, "load_priors", lambda self, _: attach_priors(self))
    config.pipeline.guidance.kind = "zero123"
    if "targets" in place:
        config.pipeline.targets.imagine = ImagineConfig(
            steps=4, begin_step=4, strengths=(1.0,), views=4, sampling_steps=2, rays=100, image_size=8
        )

    def fail(*_: Any, **__: Any) -> None:
        raise OUT_OF_MEMORY

    if place.endswith("datamanager"):
        monkeypatch.setattr("consistent4d_ns.rendering.losses.mean_squared_error", fail)
    else:
        monkeypatch.setattr(place, fail)
    with pytest.raises(InputError) as raised:
        train(config)
    message = str(raised.value)
    assert "\n" not in message
    assert message.startswith(f"out of memory while {phase}")
    assert "Tried to allocate" in message or "CUDA out of memory" in message
    assert option in message
    if "setup" not in place:
        last = newest_whole(config.get_checkpoint_dir())
        assert message.endswith(f"The last checkpoint is {last}." if last else "There is no checkpoint yet.")


def test_memory_of_the_cpu_counts_as_well(config, monkeypatch):
    def fail(*_: Any) -> None:
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you"
        )

    monkeypatch.setattr(Consistent4DPipeline, "batch", fail)
    with pytest.raises(InputError, match="out of memory while fitting the input view"):
        train(config)
    monkeypatch.setattr(Consistent4DPipeline, "batch", lambda *_: {}["a bug"])
    config.timestamp = "b"
    with pytest.raises(KeyError):
        train(config)


def test_a_report_without_memory_is_a_warning(capsys):
    with warn_about_failures():
        raise OUT_OF_MEMORY
    assert "warning: too little memory for a part of the report (CUDA out of memory." in words(capsys.readouterr())
    with pytest.raises(RuntimeError, match="a bug"), warn_about_failures():
        raise RuntimeError("a bug")
