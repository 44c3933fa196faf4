"""Appending to a file on a disk that may be full: all of it or nothing."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
"""How the file is opened; Windows would change line feeds otherwise."""


def append_whole(file: Path, content: bytes) -> None:
    """Append bytes to a file, which is made if there is none; where they do not fit, it stays as it is.

    Raises:
        OSError: they cannot be written.
    """
    handle = os.open(file, APPEND, 0o666)
    try:
        size = os.fstat(handle).st_size
        try:
            _write_all(handle, content)
        except OSError:
            with suppress(OSError):
                os.ftruncate(handle, size)  # A part of a record would spoil all that follows it.
            raise
    finally:
        os.close(handle)


def _write_all(handle: int, content: bytes) -> None:
    """Write all bytes; the system may take them in parts."""
    left = memoryview(content)
    while left:
        left = left[os.write(handle, left) :]
