"""How a command ends: errors a user can act on and Ctrl-C are one line, and warnings about libraries stay away."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

FAILED = 1
"""Exit code of a command that an `InputError` ended."""
INTERRUPTED = 130
"""Exit code of a command that Ctrl-C ended: 128 plus the number of SIGINT, as shells have it."""
UNREAD = 141
"""Exit code of a command whose output nobody reads any more: 128 plus the number of SIGPIPE, as shells have it."""
EXPORTER = "nerfstudio.scripts.exporter"
"""Module of `ns-export`."""
EXPORTER_REMEDY = (
    "this export of ns-export is for static scenes or for Gaussian splats, and a Consistent4D run is neither: "
    "use `consistent4d export mesh RUN OUT`, `consistent4d export points RUN OUT` or `consistent4d export usd RUN OUT`."
)
"""What to use instead of the exports that fail with a bare AssertionError."""


class InputError(ValueError):
    """Something the user gave cannot be used; the message is one line that names the input and the remedy."""


def show_input_errors_in_one_line() -> None:
    """For Nerfstudio's commands: make the interpreter print `line_of` an uncaught exception, if there is one.

    Exit codes stay the interpreter's: 1, and death by SIGINT (130 in a shell) after Ctrl-C.
    """
    previous = sys.excepthook
    if getattr(previous, "shows_input_errors", False):
        return

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        line = line_of(error)
        if line is None:
            previous(kind, error, trace)
            return
        close_progress_bars(error)
        print(line, file=sys.stderr)

    hook.shows_input_errors = True  # type: ignore[attr-defined]
    sys.excepthook = hook


@contextmanager
def one_line_endings() -> Iterator[None]:
    """For our own commands: an error a user can act on ends the process with code 1, Ctrl-C with 130, in one line."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            raise SystemExit(UNREAD) from None
        line = line_of(error)
        if line is None:
            raise
        close_progress_bars(error)
        print(line, file=sys.stderr)
        raise SystemExit(INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED) from None


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Ctrl-C takes effect at the end of the block only: raised inside of some compiled libraries, it would abort."""
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield
        return
    held: list[FrameType | None] = []
    signal.signal(signal.SIGINT, lambda _, frame: held.append(frame))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if held:
        previous(signal.SIGINT, held[-1])


def _nobody_reads() -> bool:
    """Whether the program that read this one's output has ended, as `head` does; what is left goes nowhere then."""
    try:
        output = sys.stdout.fileno()
        poll = select.poll()  # not on every system
    except (AttributeError, OSError, ValueError):
        return False
    poll.register(output, 0)
    ended = any(event & select.POLLERR for _, event in poll.poll(0))
    if ended:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return ended


def line_of(error: BaseException) -> str | None:
    """What is printed instead of a traceback; None where the traceback is what helps."""
    if isinstance(error, InputError):
        return f"error: {error}"
    if isinstance(error, KeyboardInterrupt):
        return "Interrupted."
    if isinstance(error, AssertionError) and _module_of(error) == EXPORTER:
        return f"error: {EXPORTER_REMEDY}"
    return None


def _module_of(error: BaseException) -> str | None:
    """Name of the module that raised an exception."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return frames[-1].f_globals.get("__name__") if frames else None


def close_progress_bars(error: BaseException) -> None:
    """Let the progress bars end their lines that were on the screen when an exception was raised.

    The frames of its traceback hold the generators that draw them; a generator closes its bar when it is released.
    """
    cause: BaseException | None = error
    while cause is not None:
        traceback.clear_frames(cause.__traceback__)
        cause = cause.__cause__ or cause.__context__


def hide_nerfstudio_warnings() -> None:
    """Ignore warnings that Nerfstudio's code causes: what it has to change for later versions of PyTorch is nothing
    that a user can act on. Filters given by `python -W` or PYTHONWARNINGS come first."""
    if not sys.warnoptions:
        warnings.filterwarnings("ignore", module=r"nerfstudio\.")
