"""Checkpoints appear whole or not at all, and the right one is found."""

from __future__ import annotations

import errno
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from consistent4d_ns.errors import InputError
from consistent4d_ns.files import checkpoints
from consistent4d_ns.files.checkpoints import is_whole, read_checkpoint, resumed_checkpoint, write_checkpoint

STATE = {"step": 7, "pipeline": {"weight": torch.arange(3.0)}}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder with checkpoints of steps 3 and 7."""
    for step in (3, 7):
        write_checkpoint(tmp_path / "run" / "nerfstudio_models" / f"step-{step:09d}.ckpt", {**STATE, "step": step})
    (tmp_path / "run" / "config.yml").write_text("")
    return tmp_path / "run"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_what_is_written_is_read(run: Path):
    state = read_checkpoint(run / "nerfstudio_models" / "step-000000007.ckpt")
    assert state["step"] == 7
    assert torch.equal(state["pipeline"]["weight"], STATE["pipeline"]["weight"])
    assert names(run) == ["config.yml", "step-000000003.ckpt", "step-000000007.ckpt"]


def test_nothing_is_under_the_name_before_everything_is_on_the_disk(run: Path, monkeypatch: pytest.MonkeyPatch):
    """A process that is killed at any moment leaves no half checkpoint, and no strange name beside the others."""
    new = run / "nerfstudio_models" / "step-000000009.ckpt"
    events: list[str] = []
    flush = checkpoints.flush_to_disk

    def flush_to_disk(path: Path) -> None:
        events.append("folder" if path.is_dir() else "file")
        assert new.exists() == path.is_dir()
        assert names(new.parent) == names(new.parent)[: 3 if path.is_dir() else 2]
        flush(path)

    monkeypatch.setattr(checkpoints, "flush_to_disk", flush_to_disk)
    write_checkpoint(new, STATE)
    assert events == ["file", "folder"]


def torch_error(*_: object) -> None:
    raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598")


def system_error(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("place", "fail", "reason"),
    [("torch.save", torch_error, "MiB are left there"), ("os.fsync", system_error, "No space left on device")],
)
def test_a_full_disk_is_one_line_and_takes_nothing(run: Path, monkeypatch: pytest.MonkeyPatch, place, fail, reason):
    before = names(run)
    monkeypatch.setattr(place, fail)
    with pytest.raises(InputError, match=f"cannot write .*step-000000009.ckpt: .*{reason}; make room"):
        write_checkpoint(run / "nerfstudio_models" / "step-000000009.ckpt", STATE)
    assert names(run) == before


def test_a_real_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What PyTorch raises on `/dev/full` is understood."""
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    link = tmp_path / "partial"
    link.symlink_to("/dev/full")
    monkeypatch.setattr(checkpoints, "partial_path", lambda folder: link)
    with pytest.raises(InputError, match="cannot write"):
        write_checkpoint(
            tmp_path / "models" / "step-000000001.ckpt", {"step": 1, "pipeline": {"weight": torch.zeros(1 << 20)}}
        )
    assert names(tmp_path) == []


def test_writers_of_the_same_folder_do_not_disturb_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two processes that resume one run; here one writes while the other is half way."""
    path, save, started = tmp_path / "models" / "step-000000001.ckpt", torch.save, []

    def save_slowly(state: Any, partial: Path) -> None:
        save(state, partial)
        if not started:
            started.append(partial)
            with ThreadPoolExecutor() as pool:
                pool.submit(write_checkpoint, path, {**STATE, "step": 2}).result()

    monkeypatch.setattr(torch, "save", save_slowly)
    write_checkpoint(path, STATE)
    assert read_checkpoint(path)["step"] == 7
    assert names(tmp_path) == [path.name]


def test_what_is_no_regular_file_or_empty_is_not_whole(tmp_path: Path):
    zipfile.ZipFile(tmp_path / "step-000000001.ckpt", "w").close()
    assert not is_whole(tmp_path / "step-000000001.ckpt")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "step-000000002.ckpt")
        assert not is_whole(tmp_path / "step-000000002.ckpt")  # And does not wait for a writer.


def test_other_errors_are_not_taken_for_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(RuntimeError, match="CUDA error"):
        write_checkpoint(tmp_path / "models" / "step-000000001.ckpt", STATE)


def test_a_folder_on_another_disk_behind_a_link(tmp_path: Path):
    (tmp_path / "other").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "nerfstudio_models").symlink_to(tmp_path / "other")
    write_checkpoint(tmp_path / "run" / "nerfstudio_models" / "step-000000001.ckpt", STATE)
    assert is_whole(tmp_path / "other" / "step-000000001.ckpt")


@pytest.mark.parametrize("given", ["", "nerfstudio_models", "config.yml", "nerfstudio_models/step-000000007.ckpt"])
def test_what_load_dir_may_be(run: Path, given: str):
    assert resumed_checkpoint(run / given, None, None) == run / "nerfstudio_models" / "step-000000007.ckpt"


def test_a_step_and_a_checkpoint_of_ones_own(run: Path):
    third = run / "nerfstudio_models" / "step-000000003.ckpt"
    assert resumed_checkpoint(run, 3, None) == third
    own = third.rename(run / "mine.ckpt")
    assert resumed_checkpoint(None, None, own) == own
    assert resumed_checkpoint(None, None, None) is None


@pytest.mark.parametrize(
    ("given", "step", "expected"),
    [
        ("nothing", None, "nothing does not exist: give a run's folder"),
        ("empty", None, "empty holds no checkpoint"),
        ("run", 5, "holds no checkpoint of step 5: choose from 3, 7"),
        ("run/picture.png", None, "picture.png is damaged or not a checkpoint"),
    ],
)
def test_what_load_dir_cannot_be(run: Path, given: str, step: int | None, expected: str):
    (run.parent / "empty").mkdir()
    (run / "picture.png").write_bytes(b"png")
    with pytest.raises(InputError, match=expected):
        resumed_checkpoint(run.parent / given, step, None)


def test_the_newest_whole_one_is_resumed_from(run: Path, capsys: pytest.CaptureFixture[str]):
    newest = run / "nerfstudio_models" / "step-000000007.ckpt"
    newest.write_bytes(newest.read_bytes()[:-100])
    assert resumed_checkpoint(run, None, None) == newest.with_name("step-000000003.ckpt")
    assert "step-000000007.ckpt damaged (cut off or altered); using step-000000003.ckpt" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"step-000000007\.ckpt damaged"):
        resumed_checkpoint(run, 7, None)


class Hostile:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("exploited"),)


def test_a_checkpoint_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"step": 1, "pipeline": {"weight": Hostile()}}, "step-000000001.ckpt")
    with pytest.raises(InputError, match="damaged or not a checkpoint"):
        read_checkpoint(tmp_path / "step-000000001.ckpt")
    assert not (tmp_path / "exploited").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_neither_written_nor_read(run: Path, value: float):
    """The good checkpoint stays; one that another program wrote is refused, with the tensor's name."""
    before = names(run)
    path = run / "nerfstudio_models" / "step-000000009.ckpt"
    state = {"step": 9, "pipeline": {"fine": torch.zeros(2), "field.weight": torch.tensor([1.0, value])}}
    with pytest.raises(InputError, match=r"step-000000009.ckpt is not written, because field.weight holds values"):
        write_checkpoint(path, state)
    assert names(run) == before
    torch.save(state, path)
    with pytest.raises(InputError, match=r"holds values in field.weight that are not finite: use an earlier one"):
        read_checkpoint(path)
