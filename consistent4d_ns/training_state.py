"""What the viewer and the record of a run may see of a pipeline, and how they steer it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from consistent4d_ns.data.datamanager import Consistent4DDataManager
from consistent4d_ns.guidance.base import Guidance
from consistent4d_ns.guidance.config import GuidanceConfig
from consistent4d_ns.model import Consistent4DModel
from consistent4d_ns.steering import StepSettings


class TrainingState(Protocol):
    """A pipeline as seen from outside: its parts, and what is known after the latest training step."""

    @property
    def world_size(self) -> int:
        """Processes that train together."""
        ...

    @property
    def datamanager(self) -> Consistent4DDataManager:
        """Frames, input view, and the plan of training."""
        ...

    @property
    def model(self) -> Consistent4DModel:
        """The object, which may be rendered while nobody trains it (see `Viewer.train_lock`)."""
        ...

    @property
    def guidance(self) -> Guidance | None:
        """The prior, where there is one."""
        ...

    @property
    def guidance_config(self) -> GuidanceConfig:
        """The settings of the guidance as configured."""
        ...

    @property
    def interpolates(self) -> bool:
        """Whether neighbouring images are kept consistent by an interpolation network."""
        ...

    @property
    def settings(self) -> StepSettings:
        """What the latest training step obeyed; before the first one, what is configured."""
        ...

    @property
    def step_terms(self) -> Mapping[str, Tensor]:
        """Loss terms of the latest step, unweighted, by name as in the loss dictionary."""
        ...

    @property
    def latest_terms(self) -> Mapping[str, Tensor]:
        """The latest value of every loss term, whichever step it is from."""
        ...

    def steer(self, **changes: Any) -> None:
        """Change values of `Steering` from the next step on; may be called from any thread."""
        ...

    def eval(self) -> object:
        """Switch to evaluation."""
        ...
