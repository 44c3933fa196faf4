"""A bar that shows how far a command is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def progress(items: Iterable[T], what: str, total: int) -> Iterable[T]:
    """The same items, while the error stream shows how many of the `total` are done.

    Not rich's, whose bar owns a thread: left half way by an exception, it is stopped only when it is collected as
    garbage, and if that happens in the thread of another bar, both wait for each other.
    """
    from tqdm import tqdm

    return tqdm(items, what, total)
