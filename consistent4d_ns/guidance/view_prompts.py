"""Which of its prompts a view gets: pure functions of the camera, and of the settings of `TextGuidanceConfig`."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from consistent4d_ns.guidance.config import TextGuidanceConfig

FRONT, SIDE, BACK, OVERHEAD = range(4)
"""Kinds of views, in the order of `TextGuidanceConfig.view_prompts`."""


def view_kinds(
    elevation: Float[Tensor, " views"], azimuth: Float[Tensor, " views"], config: TextGuidanceConfig
) -> Int64[Tensor, " views"]:
    """The kind of each view, by tensor operations alone.

    Args:
        elevation: Degrees above the object.
        azimuth: Degrees from its front, in any range.
        config: Where the kinds end.
    """
    from_front = ((azimuth + 180.0) % 360.0 - 180.0).abs()
    kinds = torch.full_like(azimuth, SIDE, dtype=torch.int64)
    kinds = kinds.masked_fill(from_front <= config.front_angle, FRONT)
    kinds = kinds.masked_fill(from_front >= 180.0 - config.back_angle, BACK)
    return kinds.masked_fill(elevation > config.overhead_angle, OVERHEAD)


def view_prompts(prompt: str, config: TextGuidanceConfig) -> list[str]:
    """The prompts of all kinds of views, in the order of the kinds."""
    return [template.replace("{}", prompt) for template in config.view_prompts]
