"""Frames keep their true times; only what rounding does to even ones is undone."""

from __future__ import annotations

import pytest
import torch

from consistent4d_ns.data.times import FrameTimes, Spacing, even_times


def test_times_run_from_zero_to_one() -> None:
    torch.testing.assert_close(even_times(5), torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))
    assert even_times(1).tolist() == [0.0]
    assert even_times(1000)[-1] == 1.0


def test_nearest_frames_of_even_times() -> None:
    times = FrameTimes.even(5)
    assert [times.nearest(time) for time in (0.0, 0.1, 0.125, 0.2, 0.6, 0.95, 1.0)] == [0, 0, 0, 1, 2, 4, 4]
    assert FrameTimes.even(1).nearest(0.7) == 0


def test_nearest_frames_of_uneven_times() -> None:
    times = FrameTimes.at((0.0, 0.2, 1.8, 3.0), 10.0)
    assert [times.nearest(time) for time in (0.0, 0.03, 0.05, 0.3, 0.4, 0.79, 0.81, 1.0)] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_uneven_stamps_keep_their_spacing() -> None:
    spacing = Spacing.from_stamps([10.0, 11.0, 14.0])
    assert spacing.positions == (0.0, 0.5, 2.0)
    times = FrameTimes.at(spacing.positions, 4.0)
    assert times.times == (0.0, 0.25, 1.0)
    assert times.fps == 4.0
    assert not times.is_even
    assert times.tensor().tolist() == [0.0, 0.25, 1.0]


def test_rounded_times_are_even() -> None:
    """30 frames per second in whole milliseconds."""
    stamps = [round(1000 * i / 30) for i in range(31)]
    assert Spacing.from_stamps(stamps) == Spacing.even(31)
    times = FrameTimes.at(Spacing.even(31).positions, 30.0)
    assert times.is_even
    assert torch.equal(times.tensor(), even_times(31))


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_stride_keeps_the_duration(stride: int) -> None:
    positions = Spacing.even(7).positions[::stride]
    assert FrameTimes.at(positions, 30.0).fps == pytest.approx(30.0 / stride)
    assert FrameTimes.at(positions, 30.0).is_even


def test_a_stride_over_uneven_frames() -> None:
    """Frames at 0, .1, .2, .3, .9 and 1 s: of every second one, the last comes after .9 s."""
    positions = Spacing.from_stamps([0.0, 0.1, 0.2, 0.3, 0.9, 1.0]).positions
    times = FrameTimes.at(positions[::2], 5.0)
    assert times.times == pytest.approx((0.0, 2 / 9, 1.0))
    assert (len(times) - 1) / times.fps == pytest.approx(0.9)


def test_one_frame() -> None:
    assert FrameTimes.at((3.0,), 12.0) == FrameTimes.even(1, 12.0)
    assert Spacing.from_stamps([5.0]) == Spacing.even(1)
