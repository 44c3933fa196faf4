"""Names of frames as people have them: order, gaps, strays, time stamps."""

from __future__ import annotations

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
