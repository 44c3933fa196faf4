"""Short messages on the terminal, each on one line of its own."""

from __future__ import annotations

from nerfstudio.utils.rich_utils import CONSOLE


def say(message: str) -> None:
    """Print one line, not wrapped."""
    CONSOLE.print(message, markup=False, highlight=False, emoji=False, soft_wrap=True)


def warn(message: str) -> None:
    """Print one line that the user should act on, or at least know of."""
    CONSOLE.print(f"warning: {message}", style="yellow", markup=False, highlight=False, emoji=False, soft_wrap=True)
