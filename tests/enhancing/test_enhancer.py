"""The folder of an enhancer, and what it does to rendered frames."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from consistent4d_ns.enhancing.enhancer import (
    WEIGHTS,
    Enhancer,
    enhanced_clip,
    enhanced_frames,
    enhanced_rows,
    load_enhancer,
    save_enhancer,
    windows,
    with_alpha,
)
from consistent4d_ns.enhancing.settings import SETTINGS
from consistent4d_ns.enhancing.training import new_networks
from consistent4d_ns.errors import InputError
from consistent4d_ns.media.encoding import on_white
from tests.support.hash_fill import hash_u, images


@pytest.fixture(scope="module")
def enhancer() -> Enhancer:
    """Random weights, with running means of its own."""
    generator, _ = new_networks(8, 1, "cpu")
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.mul_(5.0)
        generator(torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    return Enhancer(generator.eval().requires_grad_(False), 32)


def clip(count: int, height: int = 32, width: int = 32) -> torch.Tensor:
    return (255 * images(count, height, width, 7)).round().byte()


def test_frames_of_every_group_have_their_true_neighbours(enhancer: Enhancer):
    """Long videos in groups are what they would be at once."""
    frames = clip(37)
    together = enhanced_frames(frames, enhancer)
    torch.testing.assert_close(torch.stack(list(enhanced_clip(frames, enhancer))), together, atol=1e-4, rtol=0)
    assert (together[1:] - together[:-1]).abs().max() > 0.01


def test_a_frame_depends_on_its_neighbours_and_on_no_others(enhancer: Enhancer):
    frames = clip(5)
    changed = frames.clone()
    changed[0] = 255 - changed[0]
    difference = (enhanced_frames(frames, enhancer) - enhanced_frames(changed, enhancer)).abs().amax((1, 2, 3))
    assert (difference[:2] > 1e-3).all()
    assert difference[2:].max() < 1e-6


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 8, 9, 10])
def test_windows(count: int):
    found = list(windows(range(count), 4))
    assert [item for window, wanted in found for item in window[wanted]] == list(range(count))
    for window, wanted in found:
        assert window == list(range(window[0], window[-1] + 1))
        inner = window[wanted]
        assert window[0] == max(0, inner[0] - 1)
        assert window[-1] == min(count - 1, inner[-1] + 1)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 40), (32, 31)])
def test_every_size(enhancer: Enhancer, height: int, width: int):
    assert enhanced_frames(clip(2, height, width), enhancer).shape == (2, 3, height, width)


def test_only_chosen_tiles_change_and_white_stays_true(enhancer: Enhancer):
    u = hash_u(20 * 32 * 64 * 4, 3).reshape(20, 32, 64, 4)
    rows = np.round(127.5 * (u + 1)).astype(np.uint8)
    rows[:, :8, :, 3] = 0
    after = np.stack(list(enhanced_rows(iter(rows), (False, True), enhancer)))
    assert (after[:, :, :32] == rows[:, :, :32]).all()
    expected = enhanced_frames(torch.from_numpy(on_white(rows[:, :, 32:])).movedim(-1, 1), enhancer).movedim(1, -1)
    shown = on_white(after[:, :, 32:]) / 255.0
    assert np.abs(shown - expected.numpy()).max() < 4.6 / 255
    assert (after[:, :, 32:, 3] >= rows[:, :, 32:, 3]).all()


def test_opacity_by_hand():
    """White stays transparent, almost white becomes so, and a dark pixel outside of the object becomes opaque."""
    colours = torch.tensor([[1.0, 1.0, 1.0], [0.99, 1.0, 1.0], [0.2, 0.6, 1.0], [0.9, 0.9, 0.9]])[None, None]
    alpha = torch.tensor([0.0, 0.0, 0.0, 0.5])[None, None, :, None]
    rgba = with_alpha(colours, alpha)[0, 0]
    assert rgba[:, 3].tolist() == pytest.approx([0.0, 0.0, 0.8, 0.5], abs=1 / 255)
    white = rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:]
    assert white[2].tolist() == pytest.approx([0.2, 0.6, 1.0])
    assert white[3].tolist() == pytest.approx([0.9, 0.9, 0.9])


def test_saved_and_loaded(enhancer: Enhancer, tmp_path: Path):
    save_enhancer(tmp_path, enhancer, {"prompt": "a cat"})
    loaded = load_enhancer(tmp_path, "cpu")
    assert loaded.size == 32
    assert not loaded.generator.training
    assert torch.equal(enhanced_frames(clip(3), loaded), enhanced_frames(clip(3), enhancer))
    assert json.loads((tmp_path / SETTINGS).read_text())["prompt"] == "a cat"


def settings(folder: Path, **changes: Any) -> None:
    file = folder / SETTINGS
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def cut(folder: Path) -> None:
    file = folder / WEIGHTS
    file.write_bytes(file.read_bytes()[:-100])


def not_finite(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors["down.0.weight"][0] = float("nan")
    save_file(tensors, folder / WEIGHTS)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / SETTINGS).unlink(), f"holds no {SETTINGS}"),
        (lambda folder: (folder / SETTINGS).write_text("[" * 100_000), "cannot be read as the settings"),
        (lambda folder: (folder / SETTINGS).write_text("[1]"), "cannot be read as the settings"),
        (lambda folder: settings(folder, format=2), "no valid format, channels and size"),
        (lambda folder: settings(folder, channels=10**9), "no valid format, channels and size"),
        (lambda folder: settings(folder, channels=True), "no valid format, channels and size"),
        (lambda folder: settings(folder, channels=16), "does not hold the weights that"),
        (lambda folder: (folder / WEIGHTS).unlink(), "cannot be read"),
        (lambda folder: (folder / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1"), "Git LFS"),
        (cut, "cut off"),
        (not_finite, "not finite"),
    ],
)
def test_damaged_folders(enhancer: Enhancer, tmp_path: Path, damage: Any, words: str):
    save_enhancer(tmp_path, enhancer, {})
    damage(tmp_path)
    with pytest.raises(InputError, match=words) as raised:
        load_enhancer(tmp_path, "cpu")
    assert "\n" not in str(raised.value)
    assert "consistent4d enhance" in str(raised.value)
    assert str(tmp_path) in str(raised.value)
