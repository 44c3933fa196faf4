"""What the demo leaves behind, on a run of a few steps."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from consistent4d_ns.cli import demo
from consistent4d_ns.errors import InputError
from consistent4d_ns.export.options import MeshOptions, SolidOptions
from tests.export.objects import BallField
from tests.support.tiny import SIZE, toy_folder

pytestmark = pytest.mark.slow


@pytest.fixture
def trainer(tmp_path):
    config = demo.mini_config(toy_folder(tmp_path), tmp_path / "out")
    config.max_num_iterations = 40
    plan = config.pipeline.datamanager.plan
    plan.views = plan.clip_views = (1,) * len(plan.stage_steps)
    config.pipeline.targets.imagine.views, config.pipeline.targets.imagine.sampling_steps = 4, 2
    config.pipeline.datamanager.dataparser.image_size = SIZE
    return demo.train(config)


def read_video(path: Path) -> np.ndarray:
    with av.open(str(path)) as video:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video.streams.video[0])])


def test_videos_contact_sheet_and_figures(trainer, monkeypatch, capsys):
    monkeypatch.setattr(demo, "VIDEO_FRAMES", 6)
    monkeypatch.setattr(demo, "VIDEO_SIZE", 48)
    demo.report(trainer)
    folder = trainer.config.get_base_dir()
    orbit, fixed = read_video(folder / "orbit.mp4"), read_video(folder / "fixed_view.mp4")
    assert orbit.shape == fixed.shape == (6, 48, 48, 3)
    assert np.abs(orbit[0].astype(int) - orbit[3]).max() > 10
    printed = capsys.readouterr().out
    assert "novel-view PSNR" in printed
    for name in ("orbit.mp4", "fixed_view.mp4", "contact_sheet.png", "losses.png"):
        assert str(folder / name) in printed
        assert (folder / name).exists()
    monkeypatch.setattr(demo, "SolidOptions", lambda: SolidOptions(resolution=32))
    monkeypatch.setattr(demo, "PAGE_MESH", MeshOptions(faces=200, texture_size=64))
    assert demo.write_page(trainer) == f"open in a browser: {folder / 'page.html'}"
    assert "<title>toy</title>" in (folder / "page.html").read_text(encoding="utf-8")
    (folder / "contact_sheet.png").unlink()  # as where it could not be written, of which training warns
    demo.report(trainer)
    assert "contact sheet:" not in capsys.readouterr().out
    (folder / "page.html").unlink()
    trainer.pipeline.model.field = BallField(density=1e-3)
    assert demo.write_page(trainer).startswith("no page to turn the object on: the object is transparent from all side")
    assert not (folder / "page.html").exists()


def test_frames_that_are_not_there_are_refused_first(tmp_path):
    with pytest.raises(InputError, match="nowhere does not exist: give --data a folder of RGBA frames"):
        demo.demo(tmp_path / "out", data=tmp_path / "nowhere")
    assert not (tmp_path / "out").exists()


def test_every_phase_is_announced_before_it_begins(tmp_path, monkeypatch, capsys):
    def train(config):
        raise InputError(f"trained on {config.data}")

    monkeypatch.setattr(demo, "train", train)
    monkeypatch.setattr(demo, "TOY_SIZE", 8)
    monkeypatch.setattr(demo, "TOY_FRAMES", 2)
    with pytest.raises(InputError, match=f"trained on {tmp_path / 'out' / 'toy'}"):
        demo.demo(tmp_path / "out")
    shown = capsys.readouterr()
    phases = [line.split(":")[0] for line in shown.err.splitlines() if line.startswith("Step")]
    assert phases == ["Step 1 of 4", "Step 2 of 4"]
    assert "Rendering the toy: 14/14" in shown.err
    assert (tmp_path / "out" / "toy" / "meta.json").exists()


def test_the_hint_runs_where_the_program_is_not_on_the_path(tmp_path, monkeypatch):
    config = tmp_path / "my runs" / "config.yml"
    monkeypatch.setattr(sys, "argv", [".venv/bin/consistent4d", "demo"])
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    assert shlex.split(demo.view_command(config)) == ["consistent4d", "view", str(config)]
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert shlex.split(demo.view_command(config)) == [".venv/bin/consistent4d", "view", str(config)]
    monkeypatch.setattr(sys, "argv", ["consistent4d_ns/cli/main.py", "demo"])
    assert shlex.split(demo.view_command(config))[:3] == [sys.executable, "-m", "consistent4d_ns.cli.main"]


def test_only_the_demo_s_own_toy_is_taken_up(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "TOY_SIZE", 8)
    monkeypatch.setattr(demo, "TOY_FRAMES", 2)
    folder = tmp_path / "toy"
    assert demo.toy_frames(folder) == folder
    written = (folder / "meta.json").stat().st_mtime_ns
    assert demo.toy_frames(folder) == folder
    assert (folder / "meta.json").stat().st_mtime_ns == written
    monkeypatch.setattr(demo, "TOY_FRAMES", 3)
    with pytest.raises(
        InputError, match="is not the toy of this demo, 3 frames of 8 x 8 pixels: move it away"
    ) as raised:
        demo.toy_frames(folder)
    assert "overwrite" not in str(raised.value)
    (folder / "meta.json").write_text("[]")
    with pytest.raises(InputError, match="is not the toy of this demo"):
        demo.toy_frames(folder)


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="out is a file: give a folder"):
        demo.demo(tmp_path / "out")
    (tmp_path / "link").symlink_to("link")
    with pytest.raises(InputError, match="link is a link to link, which does not exist"):
        demo.demo(tmp_path / "link")
