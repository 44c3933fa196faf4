"""Says things to the user."""

from __future__ import annotations

from nerfstudio.utils.rich_utils import CONSOLE


def announce(line: str) -> None:
    """Print one line as it is: not wrapped, and brackets in file names are no markup."""
    CONSOLE.print(line, markup=False, highlight=False, soft_wrap=True)
