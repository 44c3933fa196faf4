"""Schedules against the recorded values at every recorded step."""

from __future__ import annotations

import json
from typing import Any

import pytest

from consistent4d_ns.schedules import Anneal

TOLERANCE = 1e-12


def anneal_of(recorded: Any) -> Anneal:
    """The schedule written upstream as a number or as [[value before,] [begin step,] start, end, end step]."""
    if not isinstance(recorded, list):
        return Anneal(recorded)
    *before, begin, start, end, end_step = recorded if len(recorded) > 3 else [0, *recorded]
    return Anneal(start, end, end_step, begin, *before)


def test_recorded_schedules(golden_json) -> None:
    for key, values in golden_json("schedules.json")["C_by_global_step"].items():
        schedule = anneal_of(json.JSONDecoder().raw_decode(key)[0])
        for step, value in values.items():
            assert schedule(int(step)) == pytest.approx(value, abs=TOLERANCE), f"{key} at step {step}"


def test_recorded_timestep_range_is_met_exactly(golden_json) -> None:
    """Truncation makes this sensitive to the last bit: the end is 199, not 200 (quirk 21)."""
    lowest, highest = Anneal(0.8, 0.2, 5000), Anneal(0.98, 0.25, 5000)
    for step, bounds in golden_json("schedules.json")["min_max_timestep"].items():
        assert [int(1000 * lowest(int(step))), int(1000 * highest(int(step)))] == bounds, f"step {step}"


@pytest.mark.parametrize("config", ["consistent4d", "consistent4d_low_vram", "consistent4d_4layers"])
def test_recorded_orientation_weight(golden_json, config: str) -> None:
    for step, weights in golden_json("schedules.json")["loss_weights"][config].items():
        assert Anneal(1.0, 20.0, 5000)(int(step)) == pytest.approx(weights["lambda_orient"], abs=TOLERANCE)


def test_ends_are_exact_and_nothing_moves_outside() -> None:
    schedule = Anneal(0.3, 0.7, end_step=30, begin_step=10)
    assert [schedule(step) for step in (0, 10)] == [0.3, 0.3]
    assert schedule(20) == pytest.approx(0.5)
    assert schedule(30) == schedule(10**9) == pytest.approx(0.7)


def test_value_before_the_beginning() -> None:
    schedule = Anneal(1.0, 2.0, end_step=300, begin_step=100, before=7.0)
    assert (schedule(99), schedule(100)) == (7.0, 1.0)
    constant = Anneal(1.0, begin_step=100, before=0.0)
    assert (constant(99), constant(100), constant(10_000)) == (0.0, 1.0, 1.0)


@pytest.mark.parametrize("end_step", [0, 100])
def test_schedule_that_ends_before_it_begins_is_refused(end_step: int) -> None:
    with pytest.raises(ValueError, match=rf"end_step \({end_step}\) must come after begin_step \(100\)"):
        Anneal(1.0, 2.0, end_step=end_step, begin_step=100)
