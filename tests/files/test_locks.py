"""Two trainings in one folder at once are refused."""

from __future__ import annotations

import errno
import multiprocessing
import os
from pathlib import Path

import pytest

from consistent4d_ns.errors import InputError
from consistent4d_ns.files import locks
from consistent4d_ns.files.locks import TrainingLock

pytestmark = pytest.mark.skipif(locks.fcntl is None, reason="this system has no fcntl")


def test_one_holder_at_a_time(tmp_path: Path):
    held = TrainingLock(tmp_path)
    with pytest.raises(InputError, match="another process is training in") as raised:
        TrainingLock(tmp_path)
    assert "\n" not in str(raised.value)
    held.release()
    held.release()
    TrainingLock(tmp_path).release()


def _die_holding(folder: Path) -> None:
    held = TrainingLock(folder)
    os._exit(3 if held.handle is not None else 4)


def test_a_killed_process_leaves_no_lock(tmp_path: Path):
    process = multiprocessing.get_context("fork").Process(target=_die_holding, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 3
    TrainingLock(tmp_path).release()


def test_without_locks_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    TrainingLock(tmp_path / "missing")
    monkeypatch.setattr(locks.fcntl, "flock", unsupported)
    both = TrainingLock(tmp_path), TrainingLock(tmp_path)
    assert all(lock.handle is None for lock in both)
    monkeypatch.setattr(locks, "fcntl", None)
    TrainingLock(tmp_path)
