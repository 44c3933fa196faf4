"""Short messages on the terminal, each on one line of its own."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from nerfstudio.utils.rich_utils import CONSOLE

FULL = tuple(getattr(errno, name) for name in ("ENOSPC", "EDQUOT") if hasattr(errno, name))
"""What a system answers where there is no room on a disk."""


@contextmanager
def on_a_full_disk() -> Iterator[None]:
    """Leave out a message for which there is no room where the output goes: it is no reason to end."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise


def say(message: str) -> None:
    """Print one line, not wrapped."""
    with on_a_full_disk():
        CONSOLE.print(message, markup=False, highlight=False, emoji=False, soft_wrap=True)


def warn(message: str) -> None:
    """Print one line that the user should act on, or at least know of."""
    with on_a_full_disk():
        CONSOLE.print(f"warning: {message}", style="yellow", markup=False, highlight=False, emoji=False, soft_wrap=True)
