"""Progress output of commands, on standard error; standard output is for results only."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
PARTS = 5
"""Number of progress lines after the first, if no bar can be drawn: one for every fifth of the work."""


def announce(what: str) -> None:
    """Print what the command does next. Call this before imports, file access or computations that take seconds.

    Args:
        what: Description, such as "Loading run/config.yml".
    """
    print(f"{what} ...", file=sys.stderr, flush=True)


def progress(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Yield the items while a bar shows how many of the `total` are done; it appears when the first is requested.

    If standard error is not a terminal, for example in a log file, plain lines are printed instead.

    This is not rich's progress bar, which owns a thread: if an exception ends the iteration early, that bar is stopped
    only when it is garbage-collected, and if this happens in the thread of another bar, the two deadlock.
    """
    if not sys.stderr.isatty():
        yield from _plain_progress(items, what, total)
        return
    from tqdm import tqdm

    with tqdm(items, what, total) as bar:
        yield from bar


def _plain_progress(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Yield the items; print one line at the start, and one for each of the `PARTS` that is done."""
    print(f"{what}: 0/{total}", file=sys.stderr, flush=True)
    for done, item in enumerate(items, start=1):
        yield item
        if done * PARTS // total > (done - 1) * PARTS // total:
            print(f"{what}: {done}/{total}", file=sys.stderr, flush=True)
