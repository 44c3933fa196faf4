"""Progress output of commands, on standard error: standard output has the results only."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
PARTS = 5
"""Lines of progress, after the first, where no bar can be drawn: one for every fifth of the work."""


def announce(what: str) -> None:
    """Say what the command does next: before imports, files or computations that take seconds, not after them.

    Args:
        what: In words, such as "Loading run/config.yml".
    """
    print(f"{what} ...", file=sys.stderr, flush=True)


def progress(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """The same items, while a bar shows how many of the `total` are done; it appears when the first is asked for.

    Where standard error is no terminal, such as in a log file, plain lines say so instead.

    Not rich's, whose bar owns a thread: left half way by an exception, it is stopped only when it is collected as
    garbage, and if that happens in the thread of another bar, both wait for each other.
    """
    if not sys.stderr.isatty():
        yield from _plain_progress(items, what, total)
        return
    from tqdm import tqdm

    with tqdm(items, what, total) as bar:
        yield from bar


def _plain_progress(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """The same items; one line at the start, and one whenever another of the `PARTS` is done."""
    print(f"{what}: 0/{total}", file=sys.stderr, flush=True)
    for done, item in enumerate(items, start=1):
        yield item
        if done * PARTS // total > (done - 1) * PARTS // total:
            print(f"{what}: {done}/{total}", file=sys.stderr, flush=True)
