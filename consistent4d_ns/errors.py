"""Errors that a user can act on, Ctrl-C and signals: their lines and exit codes. Warnings about libraries stay away."""

from __future__ import annotations

import difflib
import errno
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import NoReturn

FAILED = 1
"""Exit code of a command that could not print its results, or of `consistent4d doctor` where something is missing."""
REFUSED = 2
"""Exit code of a command that an `InputError` ended; as of one whose options cannot be read."""
BY_SIGNAL = 128
"""Exit code, less the number of the signal, of a command that a signal ended, as shells have it."""
INTERRUPTED = BY_SIGNAL + signal.SIGINT
"""Exit code of a command that Ctrl-C ended."""
UNREAD = 141
"""Exit code of a command whose output nobody reads any more: 128 plus the number of SIGPIPE, which not all systems
have."""
DEBUG = "CONSISTENT4D_DEBUG"
"""Environment variable that lets tracebacks be printed before the line that stands for them."""
ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals besides Ctrl-C that ask a program to end: a scheduler sends one, or a terminal that is closed."""
REFUSALS = tuple(
    getattr(errno, name)
    for name in ("EACCES", "EPERM", "EROFS", "ENAMETOOLONG", "ELOOP", "ENOTDIR", "ENOSPC", "EDQUOT", "EIO", "ESTALE")
    if hasattr(errno, name)
)
"""What a system answers about a path or its disk, which is no fault of a program. A missing file is not among them."""
EXPORTER = "nerfstudio.scripts.exporter"
"""Module of `ns-export`."""
EXPORTER_REMEDY = (
    "this export of ns-export is for static scenes or for Gaussian splats, and a Consistent4D run is neither: "
    "use `consistent4d export mesh RUN OUT`, or `points`, `splats` or `usd` in place of `mesh`."
)
"""What to use instead of the exports that fail with a bare AssertionError."""


class InputError(ValueError):
    """Something the user gave cannot be used; the message is one line that names the input and the remedy."""


class Ended(KeyboardInterrupt):
    """A signal of `ENDING` arrived; whatever cleans up after Ctrl-C does so after this."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        """Number of the signal."""


def end_by_signal(number: int, frame: FrameType | None) -> NoReturn:
    """A handler that raises `Ended`, once: cleaning up is not disturbed, where a sender repeats itself."""
    for other in ENDING:
        if signal.getsignal(other) is end_by_signal:
            signal.signal(other, signal.SIG_IGN)
    raise Ended(number)


def show_input_errors_in_one_line() -> None:
    """For Nerfstudio's commands: make the interpreter print `line_of` an uncaught exception, if there is one.

    The exit code is `code_of` it; after Ctrl-C the interpreter dies by SIGINT (130 in a shell).
    """
    previous = sys.excepthook
    if getattr(previous, "shows_input_errors", False):
        return

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        line = line_of(error)
        if line is None:
            previous(kind, error, trace)
            return
        show_if_debugging(error)
        close_progress_bars(error)
        print(line, file=sys.stderr)
        if not isinstance(error, KeyboardInterrupt):
            sys.exit(code_of(error))

    hook.shows_input_errors = True  # type: ignore[attr-defined]
    sys.excepthook = hook


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Ctrl-C and the signals of `ENDING` take effect at the end of the block only.

    Raised inside of some compiled libraries, they would abort the process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, *ENDING)}
    held: list[tuple[int, FrameType | None]] = []
    raising = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in raising:
        signal.signal(number, lambda *arrived: held.append(arrived))
    try:
        yield
    finally:
        for number, handler in raising.items():
            signal.signal(number, handler)
    for number, frame in held[:1]:
        raising[number](number, frame)


def line_of(error: BaseException) -> str | None:
    """What is printed instead of a traceback; None where the traceback is what helps."""
    if isinstance(error, InputError):
        return f"error: {printable(str(error))}"
    if isinstance(error, Ended):
        return f"Ended by {signal.Signals(error.number).name}."
    if isinstance(error, KeyboardInterrupt):
        return "Interrupted."
    if isinstance(error, OSError) and error.errno in REFUSALS and isinstance(error.filename, (str, bytes)):
        file = printable(os.fsdecode(error.filename))
        return f"error: {file}: {error.strerror}; give another path, or change what it leads to."
    if isinstance(error, AssertionError) and _module_of(error) == EXPORTER:
        return f"error: {EXPORTER_REMEDY}"
    return None


def did_you_mean(name: str, known: Iterable[str], prefix: str = "", most: int = 3) -> str:
    """A question that names what is spelt nearly so, each with a prefix; empty where nothing is."""
    near = [prefix + other for other in difflib.get_close_matches(name, list(known), n=most)]
    return f"did you mean {' or '.join(near)}?" if near else ""


def printable(text: str) -> str:
    """A text on one line: line breaks and control characters, which names of files may have, become escapes."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def show_if_debugging(error: BaseException) -> None:
    """Print an exception's traceback, if that was asked for by `DEBUG`."""
    if os.environ.get(DEBUG):
        traceback.print_exception(type(error), error, error.__traceback__)


def code_of(error: BaseException) -> int:
    """The exit code that belongs to `line_of` an exception."""
    if isinstance(error, Ended):
        return BY_SIGNAL + error.number
    return INTERRUPTED if isinstance(error, KeyboardInterrupt) else REFUSED


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
