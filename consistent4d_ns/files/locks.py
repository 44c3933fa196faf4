"""One training at a time in a run's folder."""

from __future__ import annotations

import os
from pathlib import Path

from consistent4d_ns.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = ".training"
"""File in a run's folder that the process that trains there holds locked."""


class TrainingLock:
    """An advisory lock on a run's folder; the system releases it when the process ends, however it ends.

    Where the system or the file system has no such locks, nothing is locked.
    """

    def __init__(self, folder: Path) -> None:
        """Take the lock.

        Raises:
            InputError: another training holds it.
        """
        self._handle: int | None = None
        if fcntl is None:
            return
        try:
            self._handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.release()
            raise InputError(
                f"another process is training in {folder}, or still shows the result: end it first, or train in a new "
                f"folder (another --timestamp)."
            ) from error
        except OSError:  # No locks on this file system, or no permission to write.
            self.release()

    def release(self) -> None:
        """Let others train in the folder; a second call does nothing."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)

    def __del__(self) -> None:
        self.release()
