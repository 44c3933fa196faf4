"""What somebody changes while training runs: a few values on top of the configuration."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from consistent4d_ns.guidance.config import GuidanceConfig
from consistent4d_ns.schedules import Anneal

FACTORS = ("rgb", "mask", "sds", "consistency")
"""Loss terms whose weights can be multiplied."""


@dataclass(frozen=True)
class Steering:
    """Changes to the configuration; as it is created there are none, and training does what the configuration says."""

    guidance_scale: float | None = None
    """Classifier-free guidance scale; None: as configured."""
    rgb: float = 1.0
    """Factor on the weight of the input view's colour, all levels."""
    mask: float = 1.0
    """Factor on the weight of the input view's silhouette, all levels."""
    sds: float = 1.0
    """Factor on the weight of score distillation, all levels."""
    consistency: float = 1.0
    """Factor on the weight of the interpolation-driven consistency, all levels."""
    noise_range: tuple[float, float] | None = None
    """Least and greatest noise level as fractions of the noise schedule's length, below 1; None: as configured."""
    pause_distillation: bool = False
    """Whether steps that would distil fit the input view instead."""

    def factor(self, term: str) -> float:
        """Factor on the weight of a loss term, named without its level."""
        return getattr(self, term) if term in FACTORS else 1.0

    def guidance(self, config: GuidanceConfig) -> GuidanceConfig:
        """The settings of the guidance with the changes made to them."""
        if self.guidance_scale is not None:
            config = dataclasses.replace(config, scale=self.guidance_scale)
        if self.noise_range is not None:
            low, high = map(Anneal, self.noise_range)
            config = dataclasses.replace(config, min_noise=low, max_noise=high)
        return config

    def changes_since(self, earlier: Steering) -> list[str]:
        """A few words for every value that differs, such as `sds 1.0 -> 2.0`; None reads `as configured`."""
        pairs = [(f.name, getattr(earlier, f.name), getattr(self, f.name)) for f in dataclasses.fields(self)]
        return [f"{name} {_words(old)} -> {_words(new)}" for name, old, new in pairs if old != new]


def _words(value: object) -> str:
    return "as configured" if value is None else str(value)
