"""TensorBoard's event file on a disk that may be full: whole records or nothing, and never an exception."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from consistent4d_ns.files.appending import append_whole


class PatientFile:
    """A file to which records are appended; one that does not fit is left out, and later ones are tried again."""

    def __init__(self, path: str, refused: Callable[[OSError], object]) -> None:
        """
        Args:
            path: The file, which may hold something already.
            refused: Called for the first record that cannot be written.
        """
        self._path, self._refused, self._has_told = Path(path), refused, False

    def write(self, record: bytes) -> None:
        """Append a record at once."""
        try:
            append_whole(self._path, record)
        except OSError as error:
            if not self._has_told:
                self._has_told = True
                self._refused(error)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing is kept open."""
