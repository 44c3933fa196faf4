"""A training on a disk that becomes full, and gets room again."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from consistent4d_ns import messages
from consistent4d_ns.cli.demo import train
from consistent4d_ns.errors import InputError
from consistent4d_ns.files.checkpoints import list_checkpoints
from consistent4d_ns.files.event_files import PatientFile
from consistent4d_ns.record.history import read_history
from consistent4d_ns.record.report import TrainingReport
from consistent4d_ns.trainer import Consistent4DTrainer
from tests.support.disks import file_limit
from tests.support.tiny import tiny_config, toy_folder

pytestmark = pytest.mark.slow


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of three megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root on Linux")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("this system mounts no small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(file: Path) -> None:
    """Write to a file until there is no room for a single byte."""
    handle = os.open(file, os.O_WRONLY | os.O_CREAT)
    for size in (1 << 16, 1):
        with suppress(OSError):
            while True:
                os.write(handle, bytes(size))
    os.close(handle)


def test_training_goes_on_and_saves_again_when_there_is_room(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Full from step 8 to step 19; checkpoints would be saved at steps 5, 10, 15 and 20."""
    config = tiny_config(toy_folder(tmp_path))
    config.output_dir, config.vis, config.max_num_iterations = disk, "tensorboard", 24
    config.steps_per_save, config.logging.steps_per_log, config.timestamp = 5, 2, "a"
    monkeypatch.setattr("consistent4d_ns.record.report.FLUSH_SECONDS", 0.0)
    monkeypatch.setattr(TrainingReport, "draw_losses", lambda self: None)
    step = Consistent4DTrainer.train_iteration
    seen: dict[int, list[int]] = {}

    def train_iteration(self: Any, current: int) -> Any:
        if current == 8:
            fill(disk / "filler")
        if current == 19:
            seen[current] = list(list_checkpoints(self.checkpoint_dir))
            (disk / "filler").unlink()
        return step(self, current)

    monkeypatch.setattr(Consistent4DTrainer, "train_iteration", train_iteration)
    run = train(config).config.get_base_dir()
    assert seen == {19: [5]}, "the last whole one, and no half of another"
    assert list(list_checkpoints(run / "nerfstudio_models")) == [23]
    assert [row["step"] for row in read_history(run / "losses.jsonl")] == list(range(24))
    said = capsys.readouterr().out
    assert said.count("step-000000010.ckpt: ") == said.count("step-000000015.ckpt: ") == 1
    assert said.count("losses.jsonl: No space left on device") == 1, "not at every step"
    assert said.count("TensorBoard's events cannot be written (No space left on device)") == 1
    events = EventAccumulator(str(run)).Reload()
    logged = {event.step for event in events.Scalars("Train Loss")}
    assert {0, 2, 4, 6, 20, 22} <= logged
    hidden = {path.name for path in run.iterdir() if path.name.startswith(".")}
    assert hidden == {".training"}, "nothing half written is left"


def test_a_training_does_not_begin_on_a_full_disk(disk: Path, tmp_path: Path):
    config = tiny_config(toy_folder(tmp_path))
    config.output_dir, config.vis = disk, "tensorboard"
    fill(disk / "filler")
    with pytest.raises(InputError, match=r"cannot write .*config.yml: No space left on device; make room") as raised:
        train(config)
    assert "\n" not in str(raised.value)
    assert [path.name for path in disk.rglob("*") if path.is_file()] == ["filler"]


def test_a_record_that_does_not_fit_is_left_out_whole(tmp_path: Path):
    """The file ends with the last whole record, and goes on when there is room."""
    refused: list[OSError] = []
    file = PatientFile(str(tmp_path / "events"), refused.append)
    file.write(b"first")
    with file_limit(8):
        file.write(b"second")
        file.write(b"again")
    file.write(b"third")
    assert (tmp_path / "events").read_bytes() == b"firstthird"
    assert [error.errno for error in refused] == [errno.EFBIG]


@pytest.mark.parametrize(("number", "raised"), [(errno.ENOSPC, False), (errno.EDQUOT, False), (errno.EPIPE, True)])
def test_a_message_that_does_not_fit_does_not_end_training(monkeypatch: pytest.MonkeyPatch, number: int, raised: bool):
    """As with the output in a file on the full disk; an output that nobody reads ends the command as before."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(messages.CONSOLE, "print", refuse)
    for tell in (messages.say, messages.warn):
        if raised:
            with pytest.raises(OSError, match="pipe"):
                tell("something")
        else:
            tell("something")
