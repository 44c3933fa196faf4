"""Connected parts of masks."""

from __future__ import annotations

import numpy as np

from consistent4d_ns.data.parts import large_parts, largest_part, reaching_the_border


def mask(*rows: str) -> np.ndarray:
    return np.array([[character == "#" for character in row] for row in rows])


def test_small_parts_are_left_out():
    inside = mask("##..#", "##...", ".....", "...##")
    assert np.array_equal(large_parts(inside, 0.6), mask("##...", "##...", ".....", "....."))
    assert np.array_equal(large_parts(inside, 0.5), mask("##...", "##...", ".....", "...##"))
    assert np.array_equal(large_parts(inside, 0.0), inside)


def test_the_largest_part_is_one():
    """Also where several are equally large, all of which `large_parts` keeps."""
    inside = mask("##..#", "....#", "#....")
    assert np.array_equal(largest_part(inside), mask("##...", ".....", "....."))
    assert np.array_equal(large_parts(inside, 1.0), mask("##..#", "....#", "....."))


def test_nothing_has_no_parts():
    nothing = np.zeros((3, 4), dtype=bool)
    assert not largest_part(nothing).any()
    assert not large_parts(nothing, 0.1).any()
    assert not reaching_the_border(nothing).any()


def test_parts_at_the_border():
    """Corners do not connect."""
    inside = mask("#....", ".#...", "..##.", "...##", ".....")
    assert np.array_equal(reaching_the_border(inside), mask("#....", ".....", "..##.", "...##", "....."))
    assert reaching_the_border(np.ones((3, 3), dtype=bool)).all()
