"""Messages to the user on the console."""

from __future__ import annotations

from nerfstudio.utils.rich_utils import CONSOLE


def announce(line: str) -> None:
    """Print one line verbatim: not wrapped, and brackets in file names are not markup."""
    CONSOLE.print(line, markup=False, highlight=False, soft_wrap=True)
