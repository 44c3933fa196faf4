"""Weights of the loss terms, and how terms and their cascade levels are named (method.md section 7)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from jaxtyping import Float
from torch import Tensor

from consistent4d_ns.errors import InputError
from consistent4d_ns.schedules import Anneal

PER_LEVEL = ("rgb", "mask", "sds", "consistency", "target_rgb", "target_mask")
"""Terms that every cascade level has."""


@dataclass
class LossWeights:
    """Weights of all loss terms (method.md section 7); those per level are given once for all levels, or per level."""

    rgb: tuple[float, ...] = (500.0,)
    """Colour of the input view, mean squared error; per level."""
    mask: tuple[float, ...] = (50.0,)
    """Silhouette of the input view, mean squared error; per level."""
    sds: tuple[float, ...] = (0.1,)
    """Score distillation on novel views; per level."""
    consistency: tuple[float, ...] = (2500.0,)
    """Interpolation-driven consistency of consecutive novel views; per level."""
    target_rgb: tuple[float, ...] = (200.0,)
    """Colour of target views, mean squared error; per level."""
    target_mask: tuple[float, ...] = (20.0,)
    """Opacity of target views where the bank judges it, mean squared error over all pixels; per level."""
    orientation: Anneal = field(default_factory=lambda: Anneal(1.0, 20.0, 5000))
    """Normals that face away from the camera."""
    normal_smoothness_3d: float = 2.0
    """Difference of normals at slightly shifted points."""
    normal_smoothness_2d: float = 0.0
    """Difference of neighbouring pixels of the normal image, in steps that render whole images."""
    sparsity: float = 0.0
    """Mean accumulation of novel views."""
    opaqueness: float = 0.0
    """Entropy of the accumulation."""
    depth_variance: float = 0.0
    """Variance of depth along rays that hit the object."""

    def at(self, name: str, step: int) -> float:
        """Weight of a term at a training step; `name` as in the loss dictionary, `sds_1` for level 1."""
        term, level = split_level(name)
        value = getattr(self, term)
        if isinstance(value, Anneal):
            return value(step)
        if isinstance(value, Sequence):
            value = value[level if len(value) > 1 else 0]
        return float(value)

    def at_step(self, step: int, num_levels: int) -> dict[str, float]:
        """Weights of all terms at a training step, by name as in the loss dictionary."""
        terms = [term.name for term in fields(self)]
        names = [name for term in terms for name in (level_names(term, num_levels) if term in PER_LEVEL else [term])]
        return {name: self.at(name, step) for name in names}

    def check(self, num_levels: int) -> None:
        """Raises: InputError: A weight is negative or not finite, or there are not as many as there are levels."""
        for term in PER_LEVEL:
            values = getattr(self, term)
            if isinstance(values, Sequence) and len(values) not in (1, num_levels):
                raise InputError(
                    f"--pipeline.model.loss-weights.{term} has {len(values)} values for {num_levels} levels; "
                    "give one value for all levels or one per level."
                )
        # A schedule is linear between these steps.
        for step in (0, self.orientation.begin_step, self.orientation.end_step):
            for name, weight in self.at_step(step, num_levels).items():
                if not 0.0 <= weight < math.inf:
                    term, _ = split_level(name)
                    raise InputError(
                        f"--pipeline.model.loss-weights.{term} is {weight}: give a finite number of at least 0."
                    )

    def needs_normals(self, step: int) -> bool:
        """Whether any term at this step looks at normals."""
        return self.orientation(step) > 0 or self.normal_smoothness_3d > 0 or self.normal_smoothness_2d > 0


def level_names(term: str, num_levels: int) -> list[str]:
    """Names of a term's levels: `rgb_0`, `rgb_1`, ..."""
    return [f"{term}_{level}" for level in range(num_levels)]


def per_level(term: str, values: Float[Tensor, " levels"] | Sequence[Tensor]) -> dict[str, Tensor]:
    """The values of a term's levels by name."""
    return dict(zip(level_names(term, len(values)), values, strict=True))


def split_level(name: str) -> tuple[str, int]:
    """The term that a name of `per_level` belongs to, and the level: `sds`, 1 of `sds_1`; level 0 of other names."""
    term, _, level = name.rpartition("_")
    return (term, int(level)) if level.isdigit() else (name, 0)
