"""Clips are the images of an object in the orders that FVD and its variants name."""

from __future__ import annotations

from itertools import pairwise

import pytest

from consistent4d_ns.evaluation.orders import ORDERS, over_diagonals, over_everything, over_frames, over_views

SHAPES = [(4, 32), (9, 21), (6, 6), (1, 5), (5, 3)]


@pytest.mark.parametrize(("views", "times"), SHAPES)
def test_every_image_is_seen(views: int, times: int):
    """Equally often, but on diagonals, which visit as many views as there are times."""
    for kind, order in ORDERS.items():
        cells = [cell for clip in order(views, times) for cell in clip]
        assert {view for view, _ in cells} <= set(range(views))
        assert len(cells) == views * times * (2 if kind == "fv4d" else 1)
        assert len(set(cells)) == views * times


def test_one_thing_stands_still():
    assert all(len({view for view, _ in clip}) == 1 for clip in over_frames(4, 32))
    assert all(len({time for _, time in clip}) == 1 for clip in over_views(4, 32))


@pytest.mark.parametrize(("views", "times"), SHAPES)
def test_lines_never_jump(views: int, times: int):
    """Neighbours in a clip of all images are neighbours in view or in time."""
    for clip in over_everything(views, times):
        steps = [abs(a[0] - b[0]) + abs(a[1] - b[1]) for a, b in pairwise(clip)]
        assert set(steps) <= {1}


def test_diagonals():
    assert over_diagonals(3, 3)[0] == [(0, 0), (1, 1), (2, 2)]
    assert over_diagonals(3, 3)[2] == [(2, 0), (0, 1), (1, 2)]
    assert [view for view, _ in over_diagonals(2, 6)[0]] == [0, 0, 0, 1, 1, 1]
