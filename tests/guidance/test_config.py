"""Timesteps that follow from the configuration alone."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

from consistent4d_ns.errors import InputError
from consistent4d_ns.guidance.config import GuidanceConfig, timestep_range
from consistent4d_ns.schedules import Anneal


def exact_range(step: int) -> tuple[int, int]:
    """The default range in exact arithmetic."""
    progress = min(Fraction(1), Fraction(step, 5000))
    return int(800 - 600 * progress), int(980 - 730 * progress)


def test_timesteps_are_the_recorded_ones_but_for_float_errors(golden_json: Callable[[str], Any]) -> None:
    for step, recorded in golden_json("schedules.json")["min_max_timestep"].items():
        found = timestep_range(GuidanceConfig(), int(step), 1000)
        assert found == exact_range(int(step))
        # The original loses a whole timestep where floating point falls just short of it.
        assert all(ours - theirs in (0, 1) for ours, theirs in zip(found, recorded))


def test_timesteps_end_at_whole_fractions() -> None:
    assert timestep_range(GuidanceConfig(), 5000, 1000) == (200, 250)
    assert timestep_range(GuidanceConfig(), 123456, 1000) == (200, 250)
    assert timestep_range(GuidanceConfig(), 0, 1000) == (800, 980)


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.4), (-0.1, 0.5), (0.5, 1.0)])
def test_impossible_noise_levels_are_refused(low: float, high: float) -> None:
    config = GuidanceConfig(min_noise=Anneal(low), max_noise=Anneal(high))
    with pytest.raises(InputError, match=r"min_noise and max_noise give timesteps .* at step 7"):
        timestep_range(config, 7, 1000)
