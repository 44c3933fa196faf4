"""The report in a run's folder: its losses, their plot, a contact sheet, and what the training took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.engine.trainer import TrainerConfig

from consistent4d_ns.device.memory import device_name, lacks_memory, peak_memory
from consistent4d_ns.errors import InputError
from consistent4d_ns.files.outputs import new_file
from consistent4d_ns.messages import warn
from consistent4d_ns.record.effort import EFFORT, Effort, write_effort
from consistent4d_ns.record.history import LossHistory, plot_losses
from consistent4d_ns.targets.config import round_labels
from consistent4d_ns.training_state import TrainingState

HISTORY = "losses.jsonl"
"""Every term of every step."""
PLOT = "losses.png"
"""Their plot."""
SHEET = "contact_sheet.png"
"""The input and the object from all sides, at several times."""
FILES = (HISTORY, PLOT, SHEET, EFFORT)
"""All of these."""
FLUSH_SECONDS = 1.0
"""Interval at which losses are written to disk; a killed run loses at most these."""


class TrainingReport:
    """Records the losses of a run and plots them at the end. If that fails, it warns and training continues."""

    def __init__(self, pipeline: TrainingState, config: TrainerConfig) -> None:
        """
        Args:
            pipeline: What is trained.
            config: Names the run's folder, and the run that it resumes, whose history is continued.
        """
        self.pipeline = pipeline
        self.folder = config.get_base_dir()
        previous = previous_run(config)
        self.history = LossHistory(self.folder / HISTORY, previous and previous / HISTORY)
        self.is_finished = False
        """Whether the report is complete."""
        self._begin = self._flushed = time.monotonic()
        self._first_step: int | None = None
        self._history_failed = False

    def callbacks(self) -> list[TrainingCallback]:
        """Callbacks for the trainer."""
        return [
            TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], self.record),
            TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN], self.finish),
        ]

    def record(self, step: int) -> None:
        """Record the terms of a step.

        Raises:
            InputError: at the first step, the history to go on from cannot be read.
        """
        self.history.record(step, self.pipeline.step_terms)
        self._first_step = step if self._first_step is None else self._first_step
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.save_history()
            self._flushed = time.monotonic()

    def save_history(self) -> None:
        """Write the losses of all steps that are complete; says so when they cannot be written for the first time."""
        try:
            self.history.flush()
        except InputError as error:
            if not self._history_failed:
                warn(f"{error} Until then losses are kept in memory.")
            self._history_failed = True
        else:
            self._history_failed = False

    def finish(self, step: int) -> None:
        """Write what the training took, the history, the plot and the contact sheet."""
        with warn_about_failures():
            self.save_effort(step)
        self.save_history()
        with warn_about_failures():
            self.draw_losses()
        with warn_about_failures():
            self.draw_sheet()
        self.is_finished = True

    def save_effort(self, step: int) -> None:
        """Write what the training took up to `step`."""
        device, seconds = str(self.pipeline.model.device), time.monotonic() - self._begin
        first = step if self._first_step is None else self._first_step
        write_effort(self.folder, Effort(first, step, seconds, peak_memory(device), device_name(device)))

    def draw_losses(self) -> None:
        """Plot the history, with the beginning of each stage."""
        stages = stages_of(self.pipeline, distils=self.pipeline.guidance is not None)
        with new_file(self.folder / PLOT, overwrite=True) as file:
            plot_losses(self.history.rows(), stages, file)

    def draw_sheet(self) -> None:
        """Render the contact sheet."""
        from PIL import Image

        from consistent4d_ns.media.pictures import run_sheet

        self.pipeline.eval()
        sheet = run_sheet(self.pipeline.model, self.pipeline.datamanager)
        with new_file(self.folder / SHEET, overwrite=True) as file:
            Image.fromarray(sheet).save(file)


def stages_of(pipeline: TrainingState, distils: bool) -> dict[int, str]:
    """First step of each stage of a training after the first image size, in order, and what to call it.

    Args:
        pipeline: What is, or was, trained.
        distils: Whether steps outside of the rounds of target views distil.
    """
    plan = pipeline.datamanager.config.plan
    stages = {step: f"{size} px" for step, size in zip(plan.stage_steps, plan.image_sizes, strict=True) if step > 0}
    for step, label in round_labels(pipeline.target_rounds, "distil" if distils else "").items():
        stages[step] = ", ".join(filter(None, (label, stages.get(step))))
    return dict(sorted(stages.items()))


@contextmanager
def warn_about_failures() -> Iterator[None]:
    """Say what failed, bad input or too little memory, and go on: the run's result is in its checkpoints."""
    try:
        yield
    except InputError as error:
        warn(str(error))
    except (RuntimeError, MemoryError) as error:
        if not lacks_memory(error):
            raise
        warn(f"too little memory for a part of the report ({' '.join(str(error).split())[:160]}); it is left out.")


def previous_run(config: TrainerConfig) -> Path | None:
    """Folder of the run that is resumed."""
    if config.load_checkpoint is not None:
        return config.load_checkpoint.parent.parent
    return None if config.load_dir is None else config.load_dir.parent
