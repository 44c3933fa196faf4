"""Timesteps that follow from the configuration alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

from consistent4d_ns.errors import InputError
from consistent4d_ns.guidance.config import GuidanceConfig, check_noise_levels, timestep_range
from consistent4d_ns.schedules import Anneal


def exact_range(step: int) -> tuple[int, int]:
    """The default range in exact arithmetic."""
    progress = min(Fraction(1), Fraction(step, 5000))
    return int(800 - 600 * progress), int(980 - 730 * progress)


def default_range(step: int) -> tuple[int, int]:
    """The range that is configured by default, in timesteps."""
    config = GuidanceConfig()
    return timestep_range((config.min_noise(step), config.max_noise(step)), 1000)


def test_timesteps_are_the_recorded_ones_but_for_float_errors(golden_json: Callable[[str], Any]) -> None:
    for step, recorded in golden_json("schedules.json")["min_max_timestep"].items():
        found = default_range(int(step))
        assert found == exact_range(int(step))
        # The original loses a whole timestep where floating point falls just short of it.
        assert all(ours - theirs in (0, 1) for ours, theirs in zip(found, recorded, strict=True))


def test_timesteps_end_at_whole_fractions() -> None:
    assert default_range(5000) == (200, 250)
    assert default_range(123456) == (200, 250)
    assert default_range(0) == (800, 980)


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.4), (-0.1, 0.5), (0.5, 1.0), (math.nan, 0.5), (0.5, math.inf)])
def test_impossible_noise_levels_are_refused(low: float, high: float) -> None:
    with pytest.raises(InputError, match=r"the noise levels .* are no range within 0 to 999 .*change its min-noise"):
        timestep_range((low, high), 1000)
    with pytest.raises(InputError, match="from training step 0 on"):
        check_noise_levels(GuidanceConfig(min_noise=Anneal(low), max_noise=Anneal(high)))


def test_schedules_that_cross_are_refused_before_training() -> None:
    """The first step without a range is named, as it would fail there: it is searched for with the same function."""
    config = GuidanceConfig(max_noise=Anneal(0.98, 0.15, 5000))
    with pytest.raises(InputError, match=r"0\.3301 to 0\.3299 .* from training step 3916 on"):
        check_noise_levels(config)
    check_noise_levels(GuidanceConfig())
    check_noise_levels(GuidanceConfig(min_noise=Anneal(0.8, 0.2, 3), max_noise=Anneal(0.98, 0.2, 5)))
    with pytest.raises(InputError, match="from training step 7 on"):
        check_noise_levels(GuidanceConfig(min_noise=Anneal(0.9, begin_step=7, before=0.1), max_noise=Anneal(0.5)))
