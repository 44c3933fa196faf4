"""The settings of a training step: the configured ones, and changes made to them while training runs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

from consistent4d_ns.guidance.config import DistillationConfig
from consistent4d_ns.loss_weights import LossWeights, split_level

FACTORS = ("rgb", "mask", "sds", "consistency")
"""Loss terms whose weights can be multiplied."""
FACTOR_LIMITS = (0.0, 5.0)
"""Least and greatest factor on a loss weight."""
NOISE_LIMITS = (0.02, 0.98)
"""Least and greatest noise level that can be asked for."""
SCALE_LIMITS = (0.0, 100.0)
"""Least and greatest guidance scale that can be asked for."""


@dataclass(frozen=True)
class Steering:
    """Changes to the configuration; by default there are none.

    Values may come from any page that reaches the viewer: numbers are clamped to their limits, and what is not a
    finite number leaves the configured value.
    """

    guidance_scale: float | None = None
    """Classifier-free guidance scale, within `SCALE_LIMITS`; None: as configured."""
    rgb: float = 1.0
    """Factor on the weight of the input view's colour, all levels, within `FACTOR_LIMITS` as those that follow."""
    mask: float = 1.0
    """Factor on the weight of the input view's silhouette, all levels."""
    sds: float = 1.0
    """Factor on the weight of score distillation, all levels."""
    consistency: float = 1.0
    """Factor on the weight of the interpolation-driven consistency, all levels."""
    noise_range: tuple[float, float] | None = None
    """Least and greatest noise level as fractions of the noise schedule's length, within `NOISE_LIMITS` and in order;
    None: as configured."""
    pause_distillation: bool = False
    """Whether steps that would distil, or fit target views that the prior imagined, fit the input view instead."""

    def __post_init__(self) -> None:
        limited: dict[str, object] = {name: _limited(getattr(self, name), FACTOR_LIMITS, 1.0) for name in FACTORS}
        limited["guidance_scale"] = _limited(self.guidance_scale, SCALE_LIMITS, None)
        limited["noise_range"] = _limited_range(self.noise_range)
        limited["pause_distillation"] = bool(self.pause_distillation)
        for name, value in limited.items():
            object.__setattr__(self, name, value)  # the dataclass is frozen

    def factor(self, term: str) -> float:
        """Factor on the weight of a loss term, named without its level."""
        return getattr(self, term) if term in FACTORS else 1.0

    def changes_since(self, earlier: Steering) -> list[str]:
        """A phrase for every value that differs, such as `sds 1.0 -> 2.0`; None reads `as configured`."""
        pairs = [(f.name, getattr(earlier, f.name), getattr(self, f.name)) for f in dataclasses.fields(self)]
        return [f"{name} {_words(old)} -> {_words(new)}" for name, old, new in pairs if old != new]


@dataclass(frozen=True)
class StepSettings:
    """The settings of one training step, with schedules evaluated and steering applied."""

    steering: Steering
    """The changes to the configuration that were applied."""
    loss_weights: dict[str, float]
    """Weight of each loss term, by name as in the loss dictionary."""
    guidance_scale: float
    """Classifier-free guidance scale."""
    noise_range: tuple[float, float]
    """Least and greatest noise level, as fractions of the noise schedule's length."""


def resolve_settings(
    loss_weights: LossWeights,
    guidance: DistillationConfig,
    steering: Steering,
    step: int,
    num_levels: int,
    rgb_factor: float = 1.0,
) -> StepSettings:
    """The settings of training step `step`.

    Args:
        loss_weights: As configured.
        guidance: As configured.
        steering: Changes to both.
        step: Training step, 0-based.
        num_levels: Cascade levels.
        rgb_factor: Of the stage of training, on the weight of the input view's colour.
    """
    configured = loss_weights.at_step(step, num_levels)

    def factor(name: str) -> float:
        term, _ = split_level(name)
        return steering.factor(term) * (rgb_factor if term == "rgb" else 1.0)

    return StepSettings(
        steering=steering,
        loss_weights={name: weight * factor(name) for name, weight in configured.items()},
        guidance_scale=guidance.scale if steering.guidance_scale is None else steering.guidance_scale,
        noise_range=steering.noise_range or (guidance.min_noise(step), guidance.max_noise(step)),
    )


def _limited(value: object, limits: tuple[float, float], otherwise: float | None) -> float | None:
    """`value` within `limits`; `otherwise` where there is no finite value."""
    try:
        number = float(value) if isinstance(value, Real) else math.nan
    except OverflowError:  # an integer beyond the range of a float
        return otherwise
    return min(max(number, limits[0]), limits[1]) if math.isfinite(number) else otherwise


def _limited_range(noise_range: object) -> tuple[float, float] | None:
    """Noise levels within their limits and in order; None where they are not two finite numbers."""
    if not isinstance(noise_range, Sequence) or len(noise_range) != 2:
        return None
    low, high = (_limited(value, NOISE_LIMITS, None) for value in noise_range)
    return None if low is None or high is None else (min(low, high), max(low, high))


def _words(value: object) -> str:
    return "as configured" if value is None else str(value)
