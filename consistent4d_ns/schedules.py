"""Values that change over training, as pure functions of the step."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Anneal:
    """A value that changes linearly from `start` to `end` and then stays there (method.md section 7).

    It depends on the step alone, so a resumed run continues where it was.
    """

    start: float
    """Value at `begin_step` and, unless `before` is given, at earlier steps."""
    end: float | None = None
    """Value from `end_step` on. None: `start` throughout."""
    end_step: int = 0
    """Step at which `end` is reached."""
    begin_step: int = 0
    """Step at which the change begins."""
    before: float | None = None
    """Value before `begin_step`. None: `start`."""

    def __post_init__(self) -> None:
        if self.end is not None and self.end_step <= self.begin_step:
            raise ValueError(f"Anneal: end_step ({self.end_step}) must come after begin_step ({self.begin_step}).")

    def __call__(self, step: int) -> float:
        """The value at `step` (0-based)."""
        if self.before is not None and step < self.begin_step:
            return self.before
        if self.end is None:
            return self.start
        progress = (step - self.begin_step) / (self.end_step - self.begin_step)
        return self.start + (self.end - self.start) * min(1.0, max(0.0, progress))
