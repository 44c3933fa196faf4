"""Names of frames as people have them: order, gaps, strays, time stamps."""

from __future__ import annotations

from typing import Any

import pytest

from consistent4d_ns.data.numbering import Series, find_series
from consistent4d_ns.data.times import Spacing
from consistent4d_ns.errors import InputError


def series(*names: str) -> Series:
    return find_series("folder", names)


def refusal(*names: str) -> str:
    with pytest.raises(InputError) as raised:
        series(*names)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def numbered(pattern: str, numbers: range) -> list[str]:
    return [pattern.format(i) for i in numbers]


@pytest.mark.parametrize(
    ("pattern", "stray"),
    [
        ("{}.png", "preview.png"),
        ("{}.png", "0 (1).png"),
        ("{}.png", "3_old.png"),
        ("anya_rgba_{:03d}.png", "anya_rgba.png"),
        ("anya_rgba_{:03d}.png", "mask_000.png"),
        ("v2-{}_rgba.webp", "v1-3_rgba.webp"),
        ("{:05d}.png", "contact-sheet-2.png"),
    ],
)
def test_names_unlike_the_majority_are_left_out(pattern: str, stray: str) -> None:
    frames = numbered(pattern, range(6))
    assert series(stray, *frames).names == tuple(frames)
    assert "lacks frame 4" in refusal(stray, *frames[:4], frames[5])


@pytest.mark.parametrize(
    "names",
    [
        ("dusk.png", "dawn.png", "noon.png"),
        ("a0.png", "a1.png", "b0.png", "b1.png"),
        ("0.png", "0 (1).png", "1.png", "1 (1).png"),
        ("cam0_0.png", "cam0_1.png", "cam1_0.png", "cam1_1.png"),
        ("rose.png", "rose.webp"),
        ("cam0_0.png", "cam0_1.png", "cam1_0.png", "cover.png"),
    ],
)
def test_no_majority(names: tuple[str, ...]) -> None:
    text = refusal(*names)
    assert text.startswith("folder holds no single series of numbered frames")
    assert names[0] in text
    assert "keep only the frames there" in text


@pytest.mark.parametrize(
    "pattern", ["frame_{}.png", "{}.png", "v2_{}.png", "t={}.png", "f({}).png", "1.{}.png", "frame{}.png"]
)
def test_negative_numbers_come_first(pattern: str) -> None:
    frames = numbered(pattern, range(-3, 3))
    assert series(*sorted(frames)).names == tuple(frames)


def test_a_hyphen_between_words_is_no_sign() -> None:
    assert series("frame-2.png", "frame-1.png", "frame-3.png").names == ("frame-1.png", "frame-2.png", "frame-3.png")


@pytest.mark.parametrize("step", [5, 100])
def test_a_constant_step(step: int) -> None:
    frames = numbered("{:05d}.png", range(0, 6 * step, step))
    assert series(*frames) == Series(tuple(frames), Spacing.even(6))
    text = refusal(*frames[:3], *frames[4:])
    assert f"lacks frame {3 * step} (between {frames[2]} and {frames[4]})" in text


def test_gaps_all_over() -> None:
    """Differences of 2, 1 and 2: no steps of 2."""
    assert "lacks frame 1 " in refusal("0.png", "2.png", "3.png", "5.png")


def test_a_number_twice() -> None:
    assert "frame 1 twice (1.png, 01.png)" in refusal("0.png", "1.png", "01.png", "2.png")
    assert "frame 1 twice" in refusal("0.png", "1.png", "1.webp", "2.png")


def test_a_running_number_beside_another_one() -> None:
    """The number that differs everywhere counts."""
    names = ("0_score87.png", "1_score11.png", "2_score87.png", "10_score3.png")
    assert "lacks frame 3" in refusal(*names)
    assert series(*names[2::-1]).names == names[:3]


def test_time_stamps_in_seconds() -> None:
    """Over the full second; as a decimal number 9.966667 is less than 10.000000."""
    names = tuple(f"{1698765429.9 + i / 30:.6f}.png" for i in range(8))
    found = series(*sorted(names, reverse=True))
    assert found.names == names
    assert found.spacing.positions == Spacing.even(8).positions
    assert found.spacing.rate == pytest.approx(30.0, rel=1e-4)


def test_uneven_time_stamps_keep_their_spacing() -> None:
    spacing = series("t_9.900.png", "t_10.000.png", "t_10.300.png").spacing
    assert spacing.positions == pytest.approx((0.0, 0.5, 2.0))
    assert spacing.rate == pytest.approx(5.0)


def test_whole_numbers_as_time_stamps() -> None:
    """Milliseconds at 30 frames per second, and with a frame that came late."""
    assert series("0.png", "33.png", "67.png", "100.png").spacing == Spacing.even(4)
    assert series("0.png", "33.png", "67.png", "133.png").spacing.positions == pytest.approx(
        (0, 0.744, 1.511, 3), abs=1e-3
    )


@pytest.mark.parametrize(
    "names", [("0.png", "33.png", "67.png", "9999.png"), ("1.000.png", "1.125.png", "1.500.png", "99.000.png")]
)
def test_a_name_far_from_all_others(names: tuple[str, ...]) -> None:
    text = refusal(*names)
    assert f"times the usual step between {names[2]} and {names[3]}" in text


def test_dates() -> None:
    names = ("IMG_20231031_235959_900.png", "IMG_20231031_235959_950.png", "IMG_20231101_000000_100.png")
    found = series(*names[::-1])
    assert found.names == names
    assert found.spacing.positions == pytest.approx((0.0, 0.5, 2.0))
    assert found.spacing.rate == pytest.approx(10.0)


@pytest.mark.parametrize("pattern", ["shot_v1.{:04d}.png", "20231031_{:06d}.png", "2023-10-31 {:04d}.png"])
def test_numbers_that_look_like_time_stamps_are_counted(pattern: str) -> None:
    frames = numbered(pattern, range(1, 30))
    assert series(*frames) == Series(tuple(frames), Spacing.even(29))
    assert "lacks frame" in refusal(*frames[:7], *frames[8:])


def test_one_image_needs_no_number() -> None:
    assert series("rose.png") == Series(("rose.png",), Spacing.even(1))


@pytest.mark.parametrize(
    ("names", "positions"),
    [
        (("20240101_235959.png", "20240102_000000.png", "20240102_000001.png"), (0, 1, 2)),
        (("20240101_120000.png", "20240101_120001.png", "20240101_120003.png"), (0, 2 / 3, 2)),
        (("IMG_20240101_120058.png", "IMG_20240101_120059.png", "IMG_20240101_120100.png"), (0, 1, 2)),
        (("2024-01-01T12.59.59.png", "2024-01-01T13.00.00.png", "2024-01-01T13.00.01.png"), (0, 1, 2)),
        (("20240101_120000_998.png", "20240101_120000_999.png", "20240101_120001_000.png"), (0, 1, 2)),
        (("20240101_120059_7.png", "20240101_120100_9.png", "20240101_120101_7.png"), (0, 1, 2)),
    ],
)
def test_dates_one_step_apart(names: tuple[str, ...], positions: tuple[float, ...]) -> None:
    """Across a second, minute, hour and day, digits do not count up by one, but the times do."""
    found = series(*names[::-1])
    assert found.names == names
    assert found.spacing.positions == pytest.approx(positions)


def test_dates_with_a_pause() -> None:
    names = [f"IMG_20240101_{time}.png" for time in ("120000", "120001", "120002", "120100", "120101")]
    found = series(*names)
    assert found.names == tuple(names)
    assert found.spacing.positions == pytest.approx([4 * second / 61 for second in (0, 1, 2, 60, 61)])


def test_several_frames_of_one_time_are_refused() -> None:
    text = refusal("20240101_120000_1.png", "20240101_120000_2.png", "20240101_120001_1.png")
    assert "several frames of the same time (20240101_120000_1.png, 20240101_120000_2.png)" in text


def test_a_counter_beside_a_date_counts() -> None:
    names = ("1_20240101_120000.png", "2_20240101_120000.png", "3_20240101_120001.png")
    assert series(*names[::-1]) == Series(names, Spacing.even(3))


@pytest.mark.parametrize(
    "times",
    [
        ("0.0", "0.1", "0.2", "0.9", "1.0"),
        ("0.1", "0.2", "0.9"),
        ("1.5", "2.25", "3.125"),
        ("0.0", "0.05", "0.1", "0.15", "0.25"),
        ("9.5", "10.0", "10.25"),
    ],
)
@pytest.mark.parametrize("pattern", ["t{}.png", "{}.png", "t{}_v2.png"])
def test_decimal_numbers_are_seconds(pattern: str, times: tuple[str, ...]) -> None:
    names = tuple(pattern.format(time) for time in times)
    seconds = [float(time) for time in times]
    step = (seconds[-1] - seconds[0]) / (len(times) - 1)
    found = series(*sorted(names, reverse=True))
    assert found.names == names
    assert found.spacing.positions == pytest.approx([(second - seconds[0]) / step for second in seconds])
    assert found.spacing.rate == pytest.approx(1 / step)


def test_unpadded_frame_numbers_after_a_point() -> None:
    frames = numbered("cam1.{}.png", range(1, 13))
    assert series(*frames) == Series(tuple(frames), Spacing.even(12))
    assert "lacks frame 10" in refusal(*frames[:9], *frames[10:])


@pytest.mark.parametrize("names", [("0_s0.9.png", "1_s0.25.png", "2_s0.7.png"), ("v0.2.0.png", "v0.2.1.png")])
def test_other_decimal_numbers_are_no_times(names: tuple[str, ...]) -> None:
    assert series(*names[::-1]) == Series(names, Spacing.even(len(names)))


def test_a_constant_decimal_number_is_no_time() -> None:
    names = ("s0.5_0.png", "s0.5_1.png", "s0.5_2.png")
    assert series(*names) == Series(names, Spacing.even(3))


def test_frames_counted_in_one_second_of_a_date() -> None:
    names = tuple(numbered("20240101_120000_{}.png", range(1, 5)))
    assert series(*names[::-1]) == Series(names, Spacing.even(4))


def test_a_counter_continues_where_another_number_changes() -> None:
    names = ("1_score87.png", "2_score87.png", "3_score87.png", "4_score12.png")
    assert series(*names[::-1]).names == names


def test_rounded_decimals_are_even() -> None:
    """30 frames per second in milliseconds."""
    assert series("0.000.png", "0.033.png", "0.067.png", "0.100.png").spacing.positions == Spacing.even(4).positions


@pytest.mark.parametrize("pattern", ["cam{}.{}.png", "shot{}.{:04d}.png", "20240101_12000{}_{:03d}.png"])
def test_several_shots_are_not_decimals(pattern: str) -> None:
    names = [pattern.format(shot, i) for shot in (1, 2) for i in (1, 2, 3)]
    assert "no single series" in refusal(*names)


def test_decimals_at_a_constant_rate() -> None:
    names = tuple(f"t{i / 10:.1f}.png" for i in range(24))
    rate: Any = pytest.approx(10.0)
    assert series(*names[::-1]) == Series(names, Spacing.even(24, rate))


def test_a_counter_with_a_gap_beside_times_is_refused() -> None:
    names = ("1_20240101_120000.png", "2_20240101_120000.png", "4_20240101_120001.png")
    assert "several frames of the same time" in refusal(*names)
