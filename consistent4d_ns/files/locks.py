"""One process at a time where two would destroy each other's work, and whether somebody still writes to a folder."""

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


class FileLock:
    """An advisory lock; the system releases it when the process ends, and all to which it has passed the file.

    Where the system or the file system has no such locks, nothing is locked.
    """

    def __init__(self, file: Path, refusal: str) -> None:
        """Take the lock.

        Args:
            file: The file that is locked; made if it does not exist, and never removed.
            refusal: What to say where another process holds the lock.

        Raises:
            InputError: another process holds it.
        """
        self.handle: int | None = None
        """The open file, to be passed to processes that are to hold the lock, too; None where nothing is locked."""
        if fcntl is None:
            return
        try:
            self.handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
            fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.release()
            raise InputError(refusal) from error
        except OSError:  # No locks on this file system, or no permission to write.
            self.release()

    def release(self) -> None:
        """Let others have it; a second call does nothing."""
        handle, self.handle = self.handle, None
        if handle is not None:
            os.close(handle)

    def __del__(self) -> None:
        self.release()


class TrainingLock(FileLock):
    """The lock on a run's folder."""

    def __init__(self, folder: Path) -> None:
        """Take the lock.

        Raises:
            InputError: another training holds it.
        """
        super().__init__(
            folder / LOCK,
            f"another process is training in {folder}, or still shows the result: end it first, or train in a new "
            f"folder (another --timestamp).",
        )


class FolderLock:
    """An advisory lock on a folder itself, while a block runs; the system releases it when the process is killed.

    Where there are no such locks, nothing is locked.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> bool:
        """Take the lock; whether it is held from now on."""
        self._handle = _locked(self._folder)
        return self._handle is not None

    def __exit__(self, *_: object) -> None:
        if self._handle is not None:
            os.close(self._handle)


def is_locked(folder: Path) -> bool:
    """Whether a process holds a `FolderLock`; true also where that cannot be told."""
    handle = _locked(folder)
    if handle is not None:
        os.close(handle)
    return handle is None


def _locked(folder: Path) -> int | None:
    """A handle of a folder with the lock on it; None where another has it, or there are no locks."""
    if fcntl is None:
        return None
    handle = None
    try:
        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        if handle is not None:
            os.close(handle)
        return None
    return handle
