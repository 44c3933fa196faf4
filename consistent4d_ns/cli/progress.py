"""Progress output of commands, on standard error; standard output is for results only."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from consistent4d_ns.errors import printable

T = TypeVar("T")
PARTS = 5
"""Number of progress lines after the first, if no bar can be drawn: one for every fifth of the work."""


def say(line: str) -> None:
    """Print a line about the work; control characters, which names of files may have, become escapes."""
    print(printable(line), file=sys.stderr, flush=True)


def announce(what: str) -> None:
    """Print what the command does next. Call this before imports, file access or computations that take seconds.

    Args:
        what: Description, such as "Loading run/config.yml".
    """
    say(f"{what} ...")


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


class Fifths:
    """How far a training in another process is, in the `PARTS` of its steps."""

    def __init__(self, folder: Path, total: int) -> None:
        """
        Args:
            folder: The run's folder.
            total: Its number of training steps.
        """
        self._folder, self._total = folder, total
        self._told = 0

    def news(self) -> str | None:
        """What there is to tell, if another part is done since the last call, but not all."""
        from consistent4d_ns.record.history import last_step
        from consistent4d_ns.record.report import HISTORY

        done = 0
        with suppress(OSError):  # It is told of later, then.
            done = (last_step(self._folder / HISTORY) or 0) + 1
        part = done * PARTS // self._total
        if not self._told < part < PARTS:
            return None
        self._told = part
        return f"step {done} of {self._total}"
