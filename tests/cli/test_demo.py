"""What the demo leaves behind, on a run of a few steps."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from consistent4d_ns.cli import demo
from tests.support.tiny import SIZE, toy_folder

pytestmark = pytest.mark.slow


@pytest.fixture
def trainer(tmp_path):
    config = demo.mini_config(toy_folder(tmp_path), tmp_path / "out")
    config.max_num_iterations = 80
    config.pipeline.interpolation.kind = "none"
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
