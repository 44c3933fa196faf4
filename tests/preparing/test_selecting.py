"""Which frames are taken from a video."""

from __future__ import annotations

import numpy as np
import pytest

from consistent4d_ns.data.times import Spacing
from consistent4d_ns.errors import InputError
from consistent4d_ns.preparing.options import SelectionOptions
from consistent4d_ns.preparing.selecting import choose, seconds_of

STEADY = tuple(i / 10 for i in range(100))
"""100 frames, 10 per second."""


def test_frames_are_evenly_spaced_in_time() -> None:
    assert choose(STEADY, SelectionOptions(frames=4), "clip") == (0, 33, 66, 99)
    assert choose(STEADY, SelectionOptions(start=2, end=4, frames=3), "clip") == (20, 30, 40)
    assert choose(STEADY, SelectionOptions(fps=2, end=1.2), "clip") == (0, 5, 10)


def test_a_variable_rate_is_sampled_by_time_and_not_by_index() -> None:
    slow_then_fast = (0.0, 1.0, 2.0, 3.0, 3.1, 3.2, 3.3, 3.4, 3.5, 4.0)
    assert choose(slow_then_fast, SelectionOptions(frames=5), "clip") == (0, 1, 2, 3, 9)


def test_no_frame_is_taken_twice() -> None:
    assert choose(STEADY[:5], SelectionOptions(frames=32), "clip") == (0, 1, 2, 3, 4)
    assert choose(STEADY[:5], SelectionOptions(fps=100), "clip") == (0, 1, 2, 3, 4)
    assert choose(STEADY, SelectionOptions(fps=1e9), "clip") == tuple(range(100))
    assert choose((0.0,), SelectionOptions(), "clip") == (0,)


def test_a_rate_takes_the_frames_that_are_nearest_to_its_ticks() -> None:
    times = tuple(np.cumsum(np.random.default_rng(0).uniform(0.01, 0.2, 200)))
    for rate in (0.3, 2.0, 9.7, 40.0):
        ticks = times[0] + np.arange(int((times[-1] - times[0]) * rate) + 1) / rate
        expected = {int(np.abs(np.array(times) - tick).argmin()) for tick in ticks}
        assert choose(times, SelectionOptions(fps=rate), "clip") == tuple(sorted(expected))


def test_what_cannot_be_chosen_is_said() -> None:
    with pytest.raises(InputError, match="no frame between 20 and 30 s"):
        choose(STEADY, SelectionOptions(start=20, end=30), "clip")
    with pytest.raises(InputError, match="takes more than 1000 frames"):
        choose(tuple(i / 1000 for i in range(5000)), SelectionOptions(fps=1000), "clip")


def test_seconds_come_from_the_rate() -> None:
    assert seconds_of(Spacing((0.0, 0.5, 2.0), 4.0)) == (0.0, 0.125, 0.5)
