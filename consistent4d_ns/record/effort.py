"""What a training took: time and memory, kept in the run's folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from consistent4d_ns.checks.config import check_config
from consistent4d_ns.files.outputs import write_values
from consistent4d_ns.record.kept import read_kept

EFFORT = "training.json"
"""The file in the run's folder."""
LARGEST = 2**60
"""No number in it reaches this."""


@dataclass(frozen=True)
class Effort:
    """What a training took. Of a resumed run, what was trained before it was resumed is not part of it."""

    first_step: int
    """Its first training step: 0, unless it resumed another run."""
    last_step: int
    """Its last training step."""
    seconds: float
    """From the first step to the last, with everything between them: target views, evaluations, checkpoints."""
    peak_memory: int | None
    """Highest number of bytes in use (see `device.memory.peak_memory`); None where it is not known."""
    device: str
    """What it was trained on."""


def write_effort(folder: Path, effort: Effort) -> None:
    """Write it into a run's folder.

    Raises:
        InputError: it cannot be written.
    """
    write_values(folder / EFFORT, effort)


def read_effort(folder: Path) -> Effort | None:
    """What the training of a run took; None where that is not recorded, as in runs of version 0.2.0."""
    return read_kept(folder / EFFORT, _parsed, "what this training took is not shown")


def _parsed(values: Any) -> Effort:
    """The values of a file; raises TypeError, ValueError or InputError where they make no sense."""
    effort = Effort(**values)
    check_config(effort)
    numbers = (effort.first_step, effort.last_step, effort.seconds, effort.peak_memory or 0)
    if not all(0 <= number < LARGEST for number in numbers):
        raise ValueError
    return effort
