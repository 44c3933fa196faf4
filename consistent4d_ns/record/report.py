"""What a training run leaves in its folder beside checkpoints: its losses, their plot, a contact sheet."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.engine.trainer import TrainerConfig

from consistent4d_ns.errors import InputError
from consistent4d_ns.files.outputs import new_file
from consistent4d_ns.messages import warn
from consistent4d_ns.record.history import LossHistory, plot_losses
from consistent4d_ns.training_state import TrainingState

HISTORY = "losses.jsonl"
"""Every term of every step."""
PLOT = "losses.png"
"""The same, drawn."""
SHEET = "contact_sheet.png"
"""The input and the object from all sides, at several moments."""
FLUSH_SECONDS = 1.0
"""Longest time for which losses are kept from the disk, which is what a run that is killed loses."""


class TrainingReport:
    """Keeps the losses of a run and draws them at the end. A full disk costs the pictures, not the training."""

    def __init__(self, pipeline: TrainingState, config: TrainerConfig) -> None:
        """
        Args:
            pipeline: What is trained.
            config: Names the run's folder, and the run that it goes on from, whose history is carried on.
        """
        self.pipeline = pipeline
        self.folder = config.get_base_dir()
        previous = previous_run(config)
        self.history = LossHistory(self.folder / HISTORY, previous and previous / HISTORY)
        self.is_finished = False
        """Whether everything is drawn."""
        self._flushed = time.monotonic()

    def callbacks(self) -> list[TrainingCallback]:
        """What the trainer has to call."""
        return [
            TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], self.record),
            TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN], self.finish),
        ]

    def record(self, step: int) -> None:
        """Remember the terms of a step.

        Raises:
            InputError: at the first step, the history to go on from cannot be read.
        """
        self.history.record(step, self.pipeline.step_terms)
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.save_history()
            self._flushed = time.monotonic()

    def save_history(self) -> None:
        """Write the losses of all steps that are complete."""
        with warn_about_failures():
            self.history.flush()

    def finish(self, step: int) -> None:
        """Write the history and draw everything."""
        self.save_history()
        with warn_about_failures():
            self.draw_losses()
        with warn_about_failures():
            self.draw_sheet()
        self.is_finished = True

    def draw_losses(self) -> None:
        """Plot the history, with the beginning of each resolution stage."""
        plan = self.pipeline.datamanager.config.plan
        stages = {step: f"{size} px" for step, size in zip(plan.stage_steps, plan.image_sizes, strict=True) if step > 0}
        with new_file(self.folder / PLOT, overwrite=True) as file:
            plot_losses(self.history.rows, stages, file)

    def draw_sheet(self) -> None:
        """Render the contact sheet."""
        from PIL import Image

        from consistent4d_ns.media.pictures import run_sheet

        self.pipeline.eval()
        sheet = run_sheet(self.pipeline.model, self.pipeline.datamanager)
        with new_file(self.folder / SHEET, overwrite=True) as file:
            Image.fromarray(sheet).save(file)


@contextmanager
def warn_about_failures() -> Iterator[None]:
    """Print an `InputError` and go on: the run's result is in its checkpoints."""
    try:
        yield
    except InputError as error:
        warn(str(error))


def previous_run(config: TrainerConfig) -> Path | None:
    """Folder of the run that a run goes on from."""
    if config.load_checkpoint is not None:
        return config.load_checkpoint.parent.parent
    return None if config.load_dir is None else config.load_dir.parent
