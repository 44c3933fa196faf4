"""Training progress in the viewer."""

from __future__ import annotations

import time
from collections.abc import Mapping

import viser

from consistent4d_ns.targets.config import round_at
from consistent4d_ns.training_state import TrainingState
from consistent4d_ns.viewer.elements import Note, Readout, install

INTERVAL = 0.5
"""Minimum seconds between updates; faster ones would be unreadable, and each is sent to every connected client."""


class Progress:
    """Stage, noise levels, skipped steps and the latest value of each loss term."""

    def __init__(self, pipeline: TrainingState) -> None:
        self._pipeline = pipeline
        self._latest = 0.0
        self.stage = Readout("Stage", "Stage of training, and width of its images.")
        self.noise = Readout("Noise now", "Noise levels from which distillation draws; 1 is pure noise.")
        self.skipped = Readout("Skipped steps", "Steps that changed nothing, because a gradient was not finite.")
        self.terms = Note("Loss terms appear with the first step.")

    def install(self, server: viser.ViserServer) -> None:
        """Add the elements to the open folder."""
        install([self.stage, self.noise, self.skipped, self.terms], server)

    def show(self, step: int) -> bool:
        """Show the state after `step`, at most once per `INTERVAL`; returns whether it was shown."""
        now = time.monotonic()
        if now - self._latest < INTERVAL:
            return False
        self._latest = now
        self.stage.show(self._stage(step))
        self.noise.show(self._noise())
        self.skipped.show(str(int(self._pipeline.soundness.skipped)))
        values = {name: float(term) for name, term in self._pipeline.latest_terms.items()}
        self.terms.show(table(values, self._pipeline.settings.loss_weights))
        return True

    def _stage(self, step: int) -> str:
        targets = round_at(self._pipeline.target_rounds, step)
        if targets is not None:
            return f"{targets.name}: {targets.image_size} pixels"
        plan = self._pipeline.datamanager.config.plan
        stage = plan.stage(step)
        return f"{stage + 1} of {len(plan.stage_steps)}: {plan.image_sizes[stage]} pixels"

    def _noise(self) -> str:
        settings = self._pipeline.settings
        if self._pipeline.guidance is None:
            return "no prior"
        if settings.steering.pause_distillation:
            return "paused"
        low, high = settings.noise_range
        return f"{low:.2f} to {high:.2f}{' (fixed)' if settings.steering.noise_range else ''}"


def table(values: Mapping[str, float], weights: Mapping[str, float]) -> str:
    """A Markdown table of loss terms: latest value, weight, and their product."""
    rows = [
        f"| {name} | {value:.3g} | {weights[name]:g} | {value * weights[name]:.3g} |" for name, value in values.items()
    ]
    return "\n".join(("| term | value | weight | loss |", "|---|--:|--:|--:|", *rows))
