"""What the demo leaves behind, on a run of a few steps."""

from __future__ import annotations

import imageio.v3 as imageio
import numpy as np
import pytest
from PIL import Image

from consistent4d_ns.cli import demo
from tests.tiny import FRAMES, SIZE, toy_folder


@pytest.fixture
def trainer(tmp_path):
    config = demo.mini_config(toy_folder(tmp_path), tmp_path / "out")
    config.max_num_iterations = 80
    config.pipeline.interpolation.kind = "none"
    config.pipeline.datamanager.dataparser.image_size = SIZE
    return demo.train(config)


def test_videos_contact_sheet_and_figures(trainer, monkeypatch, capsys):
    monkeypatch.setattr(demo, "VIDEO_FRAMES", 6)
    monkeypatch.setattr(demo, "VIDEO_SIZE", 48)
    demo.report(trainer)
    folder = trainer.config.get_base_dir()
    orbit = imageio.imread(folder / "orbit.mp4")
    assert orbit.shape == (6, 48, 48, 3)
    assert np.abs(orbit[0].astype(int) - orbit[3]).max() > 10
    assert imageio.imread(folder / "fixed_view.mp4").shape == orbit.shape
    sheet = np.asarray(Image.open(folder / "contact_sheet.png"))
    cell = SIZE + 8
    assert sheet.shape == (len(demo.SHEET_TIMES) * cell, (1 + len(demo.SHEET_AZIMUTHS)) * cell, 3)
    frames = trainer.pipeline.datamanager.reference_images()
    assert len(frames) == FRAMES
    last_input = sheet[-cell + 4 : -4, 4 : 4 + SIZE] / 255
    assert np.abs(last_input - frames[-1].movedim(0, -1).numpy()).max() < 1 / 255
    printed = capsys.readouterr().out
    assert "novel-view PSNR" in printed
    assert "unconstrained" in printed
    assert str(folder / "orbit.mp4") in printed
