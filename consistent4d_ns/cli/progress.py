"""Progress output of commands, on standard error: standard output has the results only."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def announce(what: str) -> None:
    """Say what the command does next: before imports, files or computations that take seconds, not after them.

    Args:
        what: In words, such as "Loading run/config.yml".
    """
    print(f"{what} ...", file=sys.stderr, flush=True)


def progress(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """The same items, while a bar shows how many of the `total` are done; it appears when the first is asked for.

    Not rich's, whose bar owns a thread: left half way by an exception, it is stopped only when it is collected as
    garbage, and if that happens in the thread of another bar, both wait for each other.
    """
    from tqdm import tqdm

    with tqdm(items, what, total) as bar:
        yield from bar
