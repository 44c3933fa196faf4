"""Runs that earlier versions saved open in this one."""

from __future__ import annotations

import numpy as np
import torch
from nerfstudio.utils.eval_utils import eval_setup
from PIL import Image

from consistent4d_ns.runs import load_run
from tests.support.stored_run import FOLDER, IMAGE, STEPS, render


def test_a_run_of_version_0_2_opens_and_looks_as_it_did():
    run = load_run(FOLDER, device="cpu")
    assert run.step == STEPS - 1
    image, stored = render(run), np.asarray(Image.open(FOLDER / IMAGE))
    assert image.shape == stored.shape
    assert np.abs(image.astype(int) - stored).max() <= 2
    assert stored.std() > 10, "an image in which nothing is to be seen proves little"


def test_nerfstudios_commands_open_it_too():
    _, pipeline, checkpoint, step = eval_setup(FOLDER / "config.yml", test_mode="test")
    assert checkpoint.parent == FOLDER / "nerfstudio_models"
    assert step == STEPS - 1
    expected = torch.load(checkpoint, weights_only=True)["pipeline"]
    assert all(torch.equal(value.cpu(), expected[name]) for name, value in pipeline.state_dict().items())


def test_it_is_small():
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) < 300_000
