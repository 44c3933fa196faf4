"""Cycles of garbage that outlive the young generations are found soon."""

from __future__ import annotations

import gc
from collections import deque

from consistent4d_ns.device.cpu import collecting_garbage_often


class Family:
    """Its classes refer to themselves, so that only the search for cycles frees them."""


def most_alive() -> int:
    """How many classes there are at most while 3000 are made, each of which is used until 50 others are made."""
    alive, used = 0, deque(maxlen=50)
    for number in range(3000):
        used.append(type("Child", (Family,), {}))
        work = [[] for _ in range(1000)]
        del work
        if number % 20 == 0:
            alive = max(alive, len(Family.__subclasses__()))
    return alive


def test_cycles_do_not_add_up() -> None:
    before = gc.get_freeze_count()
    without = most_alive()
    with collecting_garbage_often():
        inside = most_alive()
    assert 50 <= inside < without / 2
    assert gc.get_freeze_count() == before == 0
