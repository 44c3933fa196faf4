"""What a training took, as it is kept in the run's folder; and how far a history has come."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from consistent4d_ns.cli.demo import train
from consistent4d_ns.record.effort import EFFORT, Effort, read_effort, write_effort
from consistent4d_ns.record.history import last_step
from consistent4d_ns.record.report import TrainingReport
from tests.support.tiny import tiny_config, toy_folder


@pytest.mark.slow
def test_a_training_records_what_it_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(TrainingReport, "draw_losses", lambda self: None)
    data = toy_folder(tmp_path)
    config = tiny_config(data)
    config.output_dir, config.vis, config.max_num_iterations, config.timestamp = tmp_path, "tensorboard", 3, "first"
    run = train(config).config.get_base_dir()
    effort = read_effort(run)
    assert effort is not None
    assert (effort.first_step, effort.last_step, effort.device) == (0, 2, "CPU")
    assert 0.0 < effort.seconds < 600.0
    assert effort.peak_memory is not None
    assert 100e6 < effort.peak_memory < 100e9
    again = tiny_config(data)
    again.output_dir, again.vis, again.max_num_iterations, again.timestamp = tmp_path, "tensorboard", 5, "second"
    again.load_dir = run
    resumed = read_effort(train(again).config.get_base_dir())
    assert resumed is not None
    assert (resumed.first_step, resumed.last_step) == (3, 4)
    config.overwrite = True
    config.save_config()
    assert read_effort(run) is not None
    config.enter()
    assert read_effort(run) is None, "that of the run that is overwritten"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[" * 5000,
        '{"seconds": 3}',
        '{"first_step": 0, "last_step": 9, "seconds": NaN, "peak_memory": 1, "device": "CPU"}',
        f'{{"first_step": 0, "last_step": 9, "seconds": 1{"0" * 400}, "peak_memory": 1, "device": "CPU"}}',
        '{"first_step": 0, "last_step": 9, "seconds": 1, "peak_memory": -1, "device": "CPU"}',
        '{"first_step": 0, "last_step": 9, "seconds": 1, "peak_memory": null, "device": ["CPU"]}',
        '{"first_step": 0, "last_step": 9, "seconds": 1, "peak_memory": null, "device": "CPU", "more": 1}',
    ],
)
def test_a_damaged_record_is_told_and_left_out(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]):
    (tmp_path / EFFORT).write_text(text)
    assert read_effort(tmp_path) is None
    assert f"{EFFORT} is damaged" in " ".join(capsys.readouterr().out.split())


def test_a_record_reads_as_it_was_written(tmp_path: Path):
    assert read_effort(tmp_path) is None
    for memory in (None, 123):
        effort = Effort(0, 9, 1.5, memory, "NVIDIA <H100>")
        write_effort(tmp_path, effort)
        assert read_effort(tmp_path) == effort


def test_the_last_step_of_a_history_that_is_being_written(tmp_path: Path):
    file = tmp_path / "losses.jsonl"
    assert last_step(file) is None
    file.write_text("")
    assert last_step(file) is None
    lines = [json.dumps({"step": step, "rgb_0": 0.5}) for step in range(2000)]
    file.write_text("\n".join(lines) + "\n")
    assert last_step(file) == 1999
    file.write_text("\n".join(lines) + '\n{"step": 2000, "rgb')
    assert last_step(file) == 1999
    file.write_text("theirs\n" * 5000)
    assert last_step(file) is None
