"""The part of the pipeline that the viewer and the record of a run may use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from consistent4d_ns.data.datamanager import Consistent4DDataManager
from consistent4d_ns.guidance.base import Guidance
from consistent4d_ns.guidance.config import DistillationConfig
from consistent4d_ns.model import Consistent4DModel
from consistent4d_ns.soundness import Soundness
from consistent4d_ns.steering import StepSettings
from consistent4d_ns.targets.config import TargetRound


class TrainingState(Protocol):
    """The pipeline as the viewer and the record see it: its parts, and the state after the latest training step."""

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
        """The object; rendered only while `Viewer.train_lock` is held."""
        ...

    @property
    def guidance(self) -> Guidance | None:
        """The prior, if one is loaded."""
        ...

    @property
    def guidance_config(self) -> DistillationConfig:
        """The settings of the guidance as configured."""
        ...

    @property
    def interpolates(self) -> bool:
        """Whether neighbouring images are kept consistent by an interpolation network."""
        ...

    @property
    def target_rounds(self) -> tuple[TargetRound, ...]:
        """The rounds of training that fit a bank of target views."""
        ...

    @property
    def settings(self) -> StepSettings:
        """The settings of the latest training step; before the first one, those configured."""
        ...

    @property
    def step_terms(self) -> Mapping[str, Tensor]:
        """Loss terms of the latest step, unweighted, by name as in the loss dictionary."""
        ...

    @property
    def latest_terms(self) -> Mapping[str, Tensor]:
        """The latest value of every loss term, whichever step it is from."""
        ...

    @property
    def soundness(self) -> Soundness:
        """Steps that were skipped because of values that are not finite."""
        ...

    def steer(self, **changes: Any) -> None:
        """Change values of `Steering` from the next step on; may be called from any thread."""
        ...

    def eval(self) -> object:
        """Switch to evaluation."""
        ...
