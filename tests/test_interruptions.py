"""Trainings that are killed and resumed, and which run `--resume` takes; more kills in `benchmarks.interruptions`."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import shutil
import signal
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from nerfstudio.engine.trainer import Trainer

from benchmarks.interruptions import leaves
from consistent4d_ns.cli.demo import train
from consistent4d_ns.errors import InputError
from consistent4d_ns.files.checkpoints import FOLDER, list_checkpoints, read_checkpoint, write_checkpoint
from consistent4d_ns.files.outputs import MARKER
from consistent4d_ns.record.history import last_step, read_history
from consistent4d_ns.record.report import TrainingReport
from consistent4d_ns.trainer_config import Consistent4DTrainerConfig
from tests.support.forked import start_server
from tests.support.tiny import contents, tiny_config, toy_folder

STEPS, PER_SAVE = 20, 2


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_folder(tmp_path_factory.mktemp("data"))


def configured(data: Path, out: Path, **changes: Any) -> Consistent4DTrainerConfig:
    config = dataclasses.replace(tiny_config(data), max_num_iterations=STEPS, steps_per_save=PER_SAVE)
    config.output_dir, config.vis, config.steps_per_eval_image = out, "tensorboard", 0
    # The field's second image size and the occupancy grid's updates come by.
    config.pipeline.datamanager.plan.stage_steps = (0, 12)
    vars(config).update(changes)
    return config


def train_resuming(data: Path, out: Path) -> None:
    """In a process that will be killed."""
    torch.set_num_threads(1)
    TrainingReport.finish = lambda self, step: self.save_history()  # type: ignore[method-assign]
    config = configured(data, out, resume=True)
    config.set_timestamp()
    train(config)


def killed(data: Path, out: Path, saves: int, while_writing: bool) -> Path:
    """Train until so many checkpoints more are saved, or until the next one is half written, and kill; the folder."""
    start_server()
    process = multiprocessing.get_context("forkserver").Process(target=train_resuming, args=(data, out))
    process.start()
    models = out / "toy" / "consistent4d-mini"
    begin, seen = time.monotonic(), set()
    while time.monotonic() - begin < 120.0:
        assert process.is_alive()
        seen |= {path.name for path in models.glob(f"*/{FOLDER}/*.ckpt")}
        writing = any(models.glob(f"*/.{FOLDER}-*"))
        if len(seen) >= saves and (writing or not while_writing):
            break
        time.sleep(0.0005)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    (folder,) = models.iterdir()
    return folder


def finished(data: Path, out: Path) -> Path:
    """Train to the end, in a process like those that are killed; the folder."""
    start_server()
    process = multiprocessing.get_context("forkserver").Process(target=train_resuming, args=(data, out))
    process.start()
    process.join(120.0)
    assert process.exitcode == 0
    (folder,) = (out / "toy" / "consistent4d-mini").iterdir()
    return folder


@pytest.mark.slow
def test_a_training_that_is_killed_twice_equals_one_that_is_not(data: Path, tmp_path: Path):
    """The losses of every step, and everything in the last checkpoint, to the last bit."""
    whole = finished(data, tmp_path / "whole")
    killed(data, tmp_path / "out", saves=1, while_writing=True)
    folder = killed(data, tmp_path / "out", saves=3, while_writing=False)
    half = folder / f".{FOLDER}-1-abcd0123.partial"  # As the first kill may have left one.
    half.write_bytes(b"half")
    reached, saved = last_step(folder / "losses.jsonl"), max(list_checkpoints(folder / FOLDER))
    assert reached is not None
    assert saved <= reached < STEPS - 1
    assert finished(data, tmp_path / "out") == folder
    assert read_history(folder / "losses.jsonl") == read_history(whole / "losses.jsonl")
    assert len(read_history(folder / "losses.jsonl")) == STEPS
    first, second = (
        dict(leaves(read_checkpoint(each / FOLDER / f"step-{STEPS - 1:09d}.ckpt"))) for each in (whole, folder)
    )
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]) if isinstance(value, torch.Tensor) else value == second[name], name
    assert {path.name for path in folder.iterdir() if path.name.startswith(".")} == {".training"}


@pytest.fixture
def runs(data: Path, tmp_path: Path) -> Consistent4DTrainerConfig:
    """A configuration beside runs of checkpoints alone: an early one, a late one, and the latest on other frames."""
    config = configured(data, tmp_path)
    other = tmp_path / "elsewhere"
    for age, (stamp, frames, step) in enumerate([("new", data, 10), ("old", data, 8), ("other", other, 12)]):
        made = configured(data, tmp_path, timestamp=stamp)
        made.save_config()
        folder = made.get_base_dir()
        if frames == other:
            text = (folder / "config.yml").read_text()
            (folder / "config.yml").write_text(text.replace(f"- {data.name}\n", "- elsewhere\n"))
        file = folder / FOLDER / f"step-{step:09d}.ckpt"
        write_checkpoint(file, {"step": step, "pipeline": {"weight": torch.zeros(1)}})
        for path in (file, folder / "config.yml"):
            os.utime(path, (1e9 - 100 * age, 1e9 - 100 * age) if stamp != "other" else None)
    return config


def test_resume_takes_the_latest_run_on_the_same_frames(runs: Consistent4DTrainerConfig):
    config = deepcopy(runs)
    config.resume = True
    config.set_timestamp()
    assert config.timestamp == "new"
    assert config.load_checkpoint == config.get_checkpoint_dir() / "step-000000010.ckpt"
    assert not config.resume, "it applies once and is not saved"
    named = deepcopy(runs)
    named.resume, named.timestamp = True, "old"
    named.set_timestamp()
    assert named.load_checkpoint == named.get_checkpoint_dir() / "step-000000008.ckpt"


def test_resume_says_what_it_cannot_do(runs: Consistent4DTrainerConfig, tmp_path: Path, capsys):
    finished = deepcopy(runs)
    finished.resume, finished.max_num_iterations = True, 11
    with pytest.raises(InputError, match=r"10.ckpt is complete: 11 of 11 steps are trained; to go on, give a larger"):
        finished.set_timestamp()
    for change in ({"load_dir": tmp_path}, {"overwrite": True}):
        both = deepcopy(runs)
        vars(both).update(change, resume=True)
        with pytest.raises(InputError, match="--resume True finds the run by itself: leave out"):
            both.set_timestamp()
    damaged = deepcopy(runs)
    damaged.resume = True
    file = runs.output_dir / "toy" / "consistent4d-mini" / "new" / FOLDER / "step-000000010.ckpt"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"step-000000010.ckpt damaged"):
        damaged.set_timestamp()


def test_a_run_is_not_resumed_on_other_frames(
    runs: Consistent4DTrainerConfig, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Neither on changed ones nor on those of another place; copies of its own are the same."""

    def resumed(frames: Path, stamp: str = "new") -> Path | None:
        config = configured(frames, tmp_path, resume=True, timestamp=stamp, experiment_name="toy")
        config.set_timestamp()
        return config.load_checkpoint

    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    record = tmp_path / "toy" / "consistent4d-mini" / "new" / "frames.json"
    before = record.read_text()
    assert resumed(copy) is not None
    renewed = record.read_text()
    assert resumed(copy) is not None
    assert record.read_text() == renewed != before, "copies are read once"
    first, second = sorted((copy / "input").iterdir())[:2]
    first.write_bytes(second.read_bytes())
    words = f"--resume True: .*new was trained on other frames.* than {copy} now holds: leave .* --load-dir"
    with pytest.raises(InputError, match=words):
        resumed(copy)
    assert resumed(data) is not None
    record.write_text("{")
    with pytest.raises(InputError, match=words):  # By their paths.
        resumed(copy)
    assert "frames.json is damaged" in " ".join(capsys.readouterr().out.split())
    record.unlink()
    assert resumed(data) is not None
    (record.parents[1] / "other" / record.name).unlink()
    assert resumed(copy, "other") is not None, "the frames that it names are gone: it may have been moved"


def test_resume_without_anything_to_resume_trains_from_the_start(data: Path, tmp_path: Path, capsys):
    """So one command line serves for the first start and for all that follow."""
    config = configured(data, tmp_path, resume=True)
    config.set_timestamp()
    assert config.load_checkpoint is None
    assert "holds no earlier run on these frames: training from the start" in " ".join(capsys.readouterr().out.split())
    config.save_config()
    again = configured(data, tmp_path, resume=True)
    again.set_timestamp()
    assert "has no checkpoint yet: training from the start in it" in " ".join(capsys.readouterr().out.split())
    again.save_config()
    assert again.get_base_dir() == config.get_base_dir()
    assert not (tmp_path / "toy" / "consistent4d-mini" / "{timestamp}").exists()


def test_what_a_writer_left_is_removed_and_nothing_else(data: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(TrainingReport, "finish", lambda self, step: self.save_history())
    config = configured(data, tmp_path, timestamp="a", max_num_iterations=2)
    config.save_config()
    folder = config.get_base_dir()
    for name in (".losses.jsonl-12345678.unfinished", ".losses.jsonl-mine____.unfinished"):
        (folder / name).mkdir()
        (folder / name / "losses.jsonl").write_text("half")
    marker = {"written_by": "consistent4d", "process": 7, "locked_on": None}
    (folder / ".losses.jsonl-12345678.unfinished" / MARKER).write_text(json.dumps(marker))
    (folder / ".nerfstudio_models-my-01234567.partial").write_text("kept")
    (folder / ".nerfstudio_models-7-0123abcd.partial").write_bytes(b"half")
    (folder / ".nerfstudio_models-mine").mkdir()
    (folder / ".mine").write_text("kept")
    (folder / FOLDER).mkdir()
    (folder / FOLDER / "best.ckpt").write_text("kept")
    config.overwrite = True
    train(config)
    assert {path.name for path in folder.iterdir() if path.name.startswith(".")} == {
        ".losses.jsonl-mine____.unfinished",
        ".mine",
        ".nerfstudio_models-my-01234567.partial",
        ".nerfstudio_models-mine",
        ".training",
    }
    assert sorted(path.name for path in (folder / FOLDER).iterdir()) == ["best.ckpt", "step-000000001.ckpt"]


@pytest.fixture
def run(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was trained for 4 steps of `STEPS`, and keeps the checkpoints of steps 2 and 3."""
    monkeypatch.setattr(TrainingReport, "finish", lambda self, step: self.save_history())
    made = configured(data, tmp_path, timestamp="a", max_num_iterations=4, save_only_latest_checkpoint=False)
    return train(made).config.get_base_dir()


def start(config: Consistent4DTrainerConfig) -> Trainer:
    """Train as `ns-train` does."""
    config.set_timestamp()
    return train(config)


def refusal(config: Consistent4DTrainerConfig) -> str:
    with pytest.raises(InputError) as raised:
        start(config)
    return str(raised.value)


def test_a_training_that_cannot_begin_leaves_the_run_of_its_folder_as_it_is(run: Path, data: Path, tmp_path: Path):
    """Its configuration is the only one with which its checkpoints can be opened."""
    before = contents(run)
    other = configured(data, tmp_path, timestamp="a", resume=True)
    other.pipeline.model.hidden_width = 32
    assert "does not fit this" in refusal(other)
    assert contents(run) == before
    anew = configured(data, tmp_path, timestamp="a", overwrite=True)
    anew.pipeline.guidance.kind, anew.pipeline.guidance.prior = "zero123", str(tmp_path / "nothing.ckpt")
    assert "nothing.ckpt" in refusal(anew)
    assert contents(run) == before
    (run / "losses.jsonl").write_text("mine\n" * 2)
    before = contents(run)
    assert "is not a loss history" in refusal(configured(data, tmp_path, timestamp="a", resume=True))
    assert contents(run) == before, "no step was trained"


def test_a_resumed_training_has_the_learning_rate_that_is_asked_for(run: Path, data: Path, tmp_path: Path):
    config = configured(data, tmp_path, timestamp="a", resume=True, max_num_iterations=6)
    config.optimizers["field"]["optimizer"].lr = 1e-9
    before = read_checkpoint(run / FOLDER / "step-000000003.ckpt")["pipeline"]
    trainer = start(config)
    assert [group["lr"] for group in trainer.optimizers.optimizers["field"].param_groups] == [1e-9]
    after = read_checkpoint(run / FOLDER / "step-000000005.ckpt")["pipeline"]
    names = [name for name in after if name.startswith("_model.field")]
    assert names
    assert all(torch.allclose(after[name], before[name], atol=1e-7) for name in names)


def test_no_training_goes_on_before_checkpoints_of_its_own_run(run: Path, data: Path, tmp_path: Path):
    """Afterwards there would be checkpoints of two."""
    early = run / FOLDER / "step-000000002.ckpt"
    before = contents(run)
    said = refusal(configured(data, tmp_path, timestamp="a", load_checkpoint=early))
    assert "holds a later checkpoint, step-000000003.ckpt, than step-000000002.ckpt: leave out --timestamp" in said
    assert contents(run) == before
    later = run / FOLDER / "step-000000003.ckpt"
    later.write_bytes(later.read_bytes()[:-100])  # A damaged one is of no use to anybody.
    config = configured(data, tmp_path, timestamp="a", resume=True, max_num_iterations=4)
    start(config)
    assert read_checkpoint(later)["step"] == 3
    named = later.rename(later.with_name("best.ckpt"))  # Of which step it is, its name does not say.
    configured(data, tmp_path, timestamp="a", load_checkpoint=named).set_timestamp()


@pytest.mark.parametrize("evidence", ["losses.jsonl", "training.json"])
def test_a_run_whose_checkpoints_are_gone_is_not_trained_anew(run: Path, data: Path, tmp_path: Path, evidence: str):
    """They may be on a disk that is not there."""
    (run / FOLDER).rename(tmp_path / "away")
    if evidence == "training.json":
        (run / evidence).write_text("{}")
        (run / "losses.jsonl").unlink()
    before = contents(run)
    said = refusal(configured(data, tmp_path, timestamp="a", resume=True))
    assert f"{run} was trained, but {run / FOLDER} holds no checkpoint (step-*.ckpt): put it back, or give" in said
    assert contents(run) == before


def test_an_earlier_checkpoint_that_cannot_be_removed_is_named_once(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    stuck = run / FOLDER / "step-000000099.ckpt"
    stuck.mkdir()
    config = configured(data, tmp_path, timestamp="a", resume=True, max_num_iterations=8)
    start(config)
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("step-000000099.ckpt cannot be removed (") == 1
    assert set(list_checkpoints(run / FOLDER)) == {7, 99}


def test_losses_that_are_missing_are_said(run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    lines = (run / "losses.jsonl").read_text().splitlines(keepends=True)
    (run / "losses.jsonl").write_text("".join(lines[:2]) + lines[2][:20])
    config = configured(data, tmp_path, timestamp="a", resume=True, max_num_iterations=6)
    start(config)
    assert "lacks the losses of 2 of the 4 steps before" in " ".join(capsys.readouterr().out.split())
    assert [row["step"] for row in read_history(run / "losses.jsonl")] == [0, 1, 4, 5]
