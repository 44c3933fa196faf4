"""TensorBoard's event file on a disk that may be full: whole records or nothing, and never an exception."""

from __future__ import annotations

import os
from collections.abc import Callable

APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
"""How the file is opened; Windows would change line feeds otherwise."""


class PatientFile:
    """A file to which records are appended; one that does not fit is left out, and later ones are tried again."""

    def __init__(self, path: str, refused: Callable[[OSError], object]) -> None:
        """
        Args:
            path: The file, which may hold something already.
            refused: Called for the first record that cannot be written.
        """
        self._path, self._refused, self._has_told = path, refused, False

    def write(self, record: bytes) -> None:
        """Append a record at once."""
        size: int | None = None
        try:
            handle = os.open(self._path, APPEND, 0o666)
            try:
                size = os.fstat(handle).st_size
                _write_whole(handle, record)
            except OSError:
                if size is not None:
                    os.ftruncate(handle, size)  # A part of a record would spoil all that follows it.
                raise
            finally:
                os.close(handle)
        except OSError as error:
            if not self._has_told:
                self._has_told = True
                self._refused(error)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing is kept open."""


def _write_whole(handle: int, record: bytes) -> None:
    """Write all bytes; the system may take them in parts."""
    left = memoryview(record)
    while left:
        left = left[os.write(handle, left) :]
