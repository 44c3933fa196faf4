"""What a training run leaves beside its checkpoints, and what its log shows."""

from __future__ import annotations

import errno
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from consistent4d_ns import pipeline
from consistent4d_ns import trainer as trainer_module
from consistent4d_ns.cli.demo import train
from consistent4d_ns.errors import InputError
from consistent4d_ns.media.pictures import SHEET_AZIMUTHS, SHEET_TIMES
from consistent4d_ns.method_configs import Consistent4DTrainerConfig
from consistent4d_ns.record import history, report
from consistent4d_ns.record.history import LossHistory, plot_losses, read_history
from consistent4d_ns.record.report import TrainingReport
from tests.support.tiny import FRAMES, SIZE, tiny_config, tiny_pipeline, toy_folder

STEPS = 6


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_folder(tmp_path_factory.mktemp("data"))


def config(data: Path, out: Path, timestamp: str = "first") -> Consistent4DTrainerConfig:
    made = tiny_config(data)
    made.output_dir, made.vis, made.max_num_iterations, made.timestamp = out, "tensorboard", STEPS, timestamp
    made.steps_per_save = 4
    return made


@pytest.mark.slow
def test_a_run_leaves_everything_in_its_folder(data: Path, tmp_path: Path):
    trainer = train(config(data, tmp_path))
    folder = trainer.config.get_base_dir()
    rows = read_history(folder / "losses.jsonl")
    assert [row["step"] for row in rows] == list(range(STEPS))
    assert all(row["rgb_0"] for row in rows)
    with Image.open(folder / "losses.png") as plot:
        assert len(plot.convert("L").getcolors() or []) > 20
    sheet = np.asarray(Image.open(folder / "contact_sheet.png"))
    cell = SIZE + 8
    rows_high, columns_wide = len(SHEET_TIMES) * cell, (1 + len(SHEET_AZIMUTHS)) * cell
    assert sheet.shape[0] > rows_high
    assert sheet.shape[1] > columns_wide
    last_input = sheet[-cell + 4 : -4, -columns_wide + 4 :][:, :SIZE] / 255
    assert isinstance(trainer.pipeline, pipeline.Consistent4DPipeline)
    frames = trainer.pipeline.datamanager.reference_images()
    assert len(frames) == FRAMES
    assert np.abs(last_input - frames[-1].movedim(0, -1).numpy()).max() < 1 / 255
    assert all(file.suffix == ".ckpt" for file in (folder / "nerfstudio_models").iterdir())


@pytest.mark.slow
@pytest.mark.usefixtures("without_plot")
def test_recorded_are_the_terms_of_each_step(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The history has what the step computed, before weights."""
    computed: list[dict[str, float]] = []
    original = pipeline.Consistent4DPipeline.figures

    def figures(self: Any, terms: Any, draws: Any) -> Any:
        computed.append({name: float(term.detach()) for name, term in terms.items()})
        return original(self, terms, draws)

    monkeypatch.setattr(pipeline.Consistent4DPipeline, "figures", figures)
    folder = train(config(data, tmp_path)).config.get_base_dir()
    rows = read_history(folder / "losses.jsonl")
    stored = [{name: np.float32(value) for name, value in row.items() if name != "step"} for row in rows]
    assert stored == computed


@pytest.mark.slow
@pytest.mark.usefixtures("without_plot")
def test_a_resumed_run_carries_the_history_on(data: Path, tmp_path: Path):
    first = train(config(data, tmp_path)).config.get_base_dir()
    again = config(data, tmp_path, "second")
    again.load_dir, again.load_step, again.max_num_iterations = first / "nerfstudio_models", None, STEPS + 3
    second = train(again).config.get_base_dir()
    rows = read_history(second / "losses.jsonl")
    assert [row["step"] for row in rows] == list(range(STEPS + 3))
    assert rows[:STEPS] == read_history(first / "losses.jsonl")
    # In the folder of the first run itself, steps after its checkpoint are run, and recorded, again.
    steps = [json.dumps({"step": step, "rgb_0": 7.0}) for step in range(STEPS + 20)]
    (first / "losses.jsonl").write_text("\n".join(steps))
    again.timestamp = "first"
    train(again)
    rows = read_history(first / "losses.jsonl")
    assert [row["step"] for row in rows] == list(range(STEPS + 3))
    assert [row["rgb_0"] == 7.0 for row in rows] == [True] * STEPS + [False] * 3


def test_nothing_waits_for_values_before_a_block_is_full(tmp_path: Path):
    """A term that must not be read yet is not read."""
    kept = LossHistory(tmp_path / "losses.jsonl")
    for step in range(3):
        kept.record(step, {"rgb_0": torch.tensor(float(step), device="meta")})
    assert kept.rows() == []
    assert not kept.file.exists()
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        kept.flush()


def test_values_that_are_not_finite_stay_readable(tmp_path: Path):
    kept = LossHistory(tmp_path / "losses.jsonl")
    kept.record(0, {"rgb_0": torch.tensor(float("nan")), "mask_0": torch.tensor(0.5)})
    kept.flush()
    assert json.loads(kept.file.read_text()) == {"step": 0, "rgb_0": None, "mask_0": 0.5}
    assert read_history(kept.file) == kept.rows()


def test_a_block_is_appended_and_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kept = LossHistory(tmp_path / "losses.jsonl")

    def record(step: int) -> None:
        kept.record(step, {"rgb_0": torch.tensor(float(step))})
        kept.flush()

    record(0)
    place = kept.file.stat().st_ino
    record(1)
    assert kept.file.stat().st_ino == place  # Appended to.
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full_disk)
        with pytest.raises(InputError, match=r"cannot write .*No space left"):
            record(2)
    assert [row["step"] for row in kept.rows()] == [0, 1, 2]
    record(3)
    assert [row["step"] for row in read_history(kept.file)] == [0, 1, 2, 3]


def test_memory_does_not_grow_with_the_history(tmp_path: Path):
    """What is written is not kept: an hour of steps would be tens of MB."""
    kept = LossHistory(tmp_path / "losses.jsonl")
    tracemalloc.start()
    before = 0
    try:
        for step in range(2000):
            kept.record(step, {"rgb_0": torch.tensor(float(step)), "mask_0": torch.tensor(0.5)})
            if step % 100 == 99:
                kept.flush()
            if step == 199:
                before = tracemalloc.get_traced_memory()[0]
        assert tracemalloc.get_traced_memory()[0] - before < 200_000  # of about 2 MB
    finally:
        tracemalloc.stop()
    assert kept.unwritten == []
    assert [row["step"] for row in kept.rows()] == list(range(2000))


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("cut", ["{", '{"st', '{"step": ', '{"step": 2, "rgb_0": 0.1', '{"step": 2, "rgb_0": 0.1}'])
def test_a_last_line_that_was_cut_off_is_dropped(tmp_path: Path, cut: str):
    """As a run leaves it that is killed while it writes; it is resumed, and its history is whole again."""
    file = tmp_path / "losses.jsonl"
    rows = [{"step": 0, "rgb_0": 0.5}, {"step": 1, "rgb_0": 0.25}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + cut)
    if cut.endswith("}"):  # Only the end of the line is missing.
        rows.append({"step": 2, "rgb_0": 0.1})
    assert read_history(file) == rows
    kept = LossHistory(file)
    kept.record(2, {"rgb_0": torch.tensor(0.125)})
    kept.flush()
    assert [json.loads(line) for line in file.read_text().splitlines()] == [*rows[:2], {"step": 2, "rgb_0": 0.125}]


def test_a_killed_run_loses_the_losses_of_a_second(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Not those of a number of steps, which may take minutes."""
    kept = TrainingReport(tiny_pipeline(data, priors=False), config(data, tmp_path))
    now = 100.0
    monkeypatch.setattr(report.time, "monotonic", lambda: now)
    kept._flushed = now
    written = []
    for step in range(6):
        now += 0.4
        kept.record(step)
        written.append(len(read_history(kept.history.file)))
    assert written == [0, 0, 3, 3, 3, 6]


@pytest.mark.parametrize("text", ["theirs", "[1]\n", '{"rgb_0": 1}', "\xff"])
def test_something_else_in_its_place_is_kept(tmp_path: Path, text: str):
    (tmp_path / "losses.jsonl").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"losses\.jsonl is not a loss history .*: move it away") as raised:
        LossHistory(tmp_path / "losses.jsonl").record(0, {})
    assert "\n" not in str(raised.value)
    assert (tmp_path / "losses.jsonl").read_text(encoding="latin-1") == text


@pytest.mark.slow
@pytest.mark.usefixtures("without_plot")
def test_a_full_disk_costs_the_pictures_and_not_the_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Later, with room again, nothing that was recorded is missing."""
    write_bytes, fail = Path.write_bytes, True

    def full(self: Path, *arguments: Any, **options: Any) -> int:
        if fail and self.name == "losses.jsonl":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_bytes(self, *arguments, **options)

    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(report, "FLUSH_SECONDS", 0.0)
    trainer = train(config(data, tmp_path))
    folder = trainer.config.get_base_dir()
    assert "No space left on device" in " ".join(capsys.readouterr().out.split())
    assert (folder / "nerfstudio_models" / f"step-{STEPS - 1:09d}.ckpt").exists()
    assert (folder / "contact_sheet.png").exists()
    assert not (folder / "losses.jsonl").exists()
    fail = False
    for callback in trainer.callbacks:
        if callback.func.__name__ == "finish":
            callback.func(step=STEPS - 1)
    assert len(read_history(folder / "losses.jsonl")) == STEPS


@pytest.mark.slow
def test_one_process_of_several_writes(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trainer_module, "is_main_process", lambda: False)
    folder = train(config(data, tmp_path)).config.get_base_dir()
    assert not [file.name for file in folder.iterdir() if "losses" in file.name or "contact" in file.name]


def test_the_log_shows_the_input_beside_novel_views(data: Path):
    built = tiny_pipeline(data, priors=False)
    for step, size in ((0, 16), (100, 32)):
        metrics, images = built.get_eval_image_metrics_and_images(step)
        views = images["input_and_novel_views"]
        rows = len(pipeline.LOGGED_TIMES)
        assert views.shape == (rows * (size + 8), (1 + len(SHEET_AZIMUTHS)) * (size + 8), 3)
        assert metrics["num_rays"] == SIZE**2 + rows * len(SHEET_AZIMUTHS) * size**2
    first, last = (views[start : start + SIZE, 4 : 4 + SIZE] for start in (4, 2 * (SIZE + 8) + 4))
    frames = built.datamanager.reference_images().movedim(1, -1)
    torch.testing.assert_close(first, frames[0], atol=0.5 / 255, rtol=0)
    torch.testing.assert_close(last, frames[-1], atol=0.5 / 255, rtol=0)


def test_a_plot_has_one_panel_per_term_with_the_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawn: list[tuple[str, list[str], int]] = []
    original = history._mark_stages

    def mark(axes: Any, *arguments: Any) -> None:
        before = [len(axis.lines) for axis in axes]
        original(axes, *arguments)
        for axis, lines in zip(axes, before, strict=True):
            drawn.append((axis.get_title(), [text.get_text() for text in axis.texts], len(axis.lines) - lines))
            assert axis.get_yscale() == "log"

    monkeypatch.setattr(history, "_mark_stages", mark)
    rows: list[history.Row] = [
        {"step": i, "a_0": 1 / (i + 1), "b_0": 1.0, "c_0": 1.0, "d_0": 1.0 if i > 30 else None, "a_1": None, "e": 0.0}
        for i in range(50)
    ]
    plot_losses(rows, {0: "round 1", 20: "64 px", 400: "never"}, tmp_path / "plot.png")
    # What is zero throughout cannot be drawn on such a scale. Labels stand in the top row alone, lines in all panels.
    assert drawn == [(term, ["round 1", "64 px"] if term != "d" else [], 2) for term in "abcd"]
    plot_losses([], {}, tmp_path / "empty.png")
    assert (tmp_path / "empty.png").exists()


def test_no_line_crosses_a_stage_without_values():
    steps = np.array([1.0, 3.0, 21.0, 23.0])
    drawn, values, curve = history.by_stage(steps, np.full(4, 2.0), [0, 10, 20])
    assert [None if np.isnan(step) else step for step in drawn] == [None, 1, 3, None, None, 21, 23, None]
    assert np.array_equal(np.isnan(drawn), np.isnan(values))
    assert np.allclose(curve, values, equal_nan=True)


def test_a_curve_is_the_local_geometric_mean():
    values = np.array([1.0, 100.0] * 200)
    smooth = history._smoothed(values)
    assert smooth.shape == values.shape
    assert np.abs(np.log10(smooth[50:-50]) - 1).max() < 0.1
