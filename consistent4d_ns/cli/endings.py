"""How our commands end: in one line, with an exit code, and with nothing half written."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from consistent4d_ns.errors import (
    ENDING,
    FAILED,
    UNREAD,
    close_progress_bars,
    code_of,
    end_by_signal,
    line_of,
    show_if_debugging,
)


class Output(io.TextIOWrapper):
    """Standard output or standard error, which remembers why it could not be written.

    The exception itself does not tell which of all open files it is about.
    """

    fault: OSError | None = None
    """Why it could not be written."""

    def write(self, text: str, /) -> int:
        """Write some text."""
        try:
            return super().write(text)
        except OSError as error:
            self.fault = error
            raise

    def flush(self) -> None:
        """Write what is left."""
        try:
            super().flush()
        except OSError as error:
            self.fault = error
            raise


@contextmanager
def one_line_endings() -> Iterator[None]:
    """End the process in one line, with the exit code that `errors.code_of` has for what ended it.

    So end errors that a user can act on, Ctrl-C, the signals of `ENDING`, and output that cannot be written. Where
    nobody reads the output any more, nothing is said. Other exceptions pass.
    """
    streams = watched_streams()
    with signals_raised():
        try:
            try:
                yield
            finally:
                for stream in streams:
                    stream.flush()
        except BaseException as error:
            line, code = _ending(error, streams)
            if code is None:
                raise
            show_if_debugging(error)
            close_progress_bars(error)
            with suppress(OSError):  # The terminal may be gone.
                print(line, file=sys.stderr, end="\n" if line else "", flush=True)
            raise SystemExit(code) from None
        finally:
            _discard_what_is_left(streams)


def _ending(error: BaseException, streams: Sequence[Output]) -> tuple[str, int | None]:
    """The line, if any, and the exit code with which an exception ends a command; no code where it passes."""
    faults = [stream.fault for stream in streams if stream.fault is not None]
    if faults and isinstance(error, (OSError, SystemExit)):  # Libraries may exit where nobody reads their output.
        if isinstance(faults[0], BrokenPipeError):
            return "", UNREAD
        return f"error: cannot write the output: {faults[0].strerror}; make room, or send it elsewhere.", FAILED
    line = line_of(error)
    return ("", None) if line is None else (line, code_of(error))


def watched_streams() -> list[Output]:
    """Standard output and standard error, put in place as `Output`; without those for which something else stands.

    Characters that the terminal's encoding cannot show, as in names of files, are written with escapes. They stay in
    place, because libraries keep them, too. For one that is closed, as by `>&-`, there is one that goes nowhere.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115  (it stays open)
        if type(stream) is io.TextIOWrapper:
            watched = Output(stream.buffer, encoding=stream.encoding, errors="backslashreplace")
            watched.reconfigure(line_buffering=stream.line_buffering, write_through=stream.write_through)
            setattr(sys, name, watched)
    return [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, Output)]


def _discard_what_is_left(streams: Sequence[Output]) -> None:
    """Let what could not be written go nowhere, where the interpreter would try again at its end, and complain."""
    for stream in streams:
        if stream.fault is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def signals_raised() -> Iterator[None]:
    """Raise `Ended` where a signal of `ENDING` arrives.

    Signals that are ignored already, as by `nohup`, or handled otherwise, are left alone.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    taken = [number for number in ENDING if in_main_thread and signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, end_by_signal)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)
