"""Errors a user can act on, shown as one line."""

from __future__ import annotations

import sys
from types import TracebackType


class InputError(ValueError):
    """Something the user gave cannot be used; the message is one line that names the input and the remedy."""


def show_input_errors_in_one_line() -> None:
    """Make the interpreter print an uncaught `InputError` as one line instead of a traceback (exit code stays 1)."""
    previous = sys.excepthook
    if getattr(previous, "shows_input_errors", False):
        return

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, InputError):
            print(f"error: {error}", file=sys.stderr)
        else:
            previous(kind, error, trace)

    hook.shows_input_errors = True  # type: ignore[attr-defined]
    sys.excepthook = hook
