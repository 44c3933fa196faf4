"""A bank holds images in 8 bits, and comes back from a checkpoint as it was."""

from __future__ import annotations

from pathlib import Path

import torch

from consistent4d_ns.data.cameras import orbit_views
from consistent4d_ns.data.planning import PlanConfig
from consistent4d_ns.data.times import FrameTimes
from consistent4d_ns.targets.bank import TargetBank, bank_from_images, bank_from_state
from consistent4d_ns.targets.planning import draw_moments

COUNT, SIZE = 5, 4


def bank() -> TargetBank:
    generator = torch.Generator().manual_seed(0)
    camera = orbit_views(0.0, 0.0, 2.0, 49.1)
    moments = draw_moments(PlanConfig(), COUNT, FrameTimes.even(7), camera, generator)
    rgb = torch.rand(COUNT, 3, SIZE, SIZE, generator=generator)
    opacity = torch.rand(COUNT, SIZE, SIZE, generator=generator)
    return bank_from_images(40, moments, rgb, opacity, opacity < 0.5)


def test_pixels_are_counted_view_after_view_and_row_after_row():
    stored, every = bank(), torch.arange(COUNT * SIZE**2)
    pixels = every.flip(0)[::3]
    whole, some = stored.batch(every), stored.batch(pixels)
    assert torch.equal(whole["image"].view(COUNT, SIZE, SIZE, 3).movedim(-1, 1), stored.rgb / 255)
    assert torch.equal(whole["alpha"].view(COUNT, SIZE, SIZE), stored.opacity / 255)
    assert torch.equal(whole["judged"].view(COUNT, SIZE, SIZE), stored.judged.float())
    assert all(torch.equal(some[name], whole[name][pixels]) for name in whole)


def test_values_are_rounded_to_the_nearest_of_256():
    generator = torch.Generator().manual_seed(2)
    rgb = torch.rand(COUNT, 3, SIZE, SIZE, generator=generator)
    stored = bank_from_images(0, bank().moments, rgb, rgb[:, 0], rgb[:, 0] > 2)
    assert float((stored.rgb / 255 - rgb).abs().max()) <= 0.5 / 255 + 1e-6
    white = bank_from_images(0, bank().moments, torch.full_like(rgb, 1.2), rgb[:, 0] * 0 - 1, rgb[:, 0] > 2)
    assert int(white.rgb.min()) == 255
    assert int(white.opacity.max()) == 0


def test_a_checkpoint_gives_it_back(tmp_path: Path):
    stored = bank()
    torch.save(stored.state_dict(), tmp_path / "bank")
    again = bank_from_state(torch.load(tmp_path / "bank", weights_only=True), "cpu")
    assert (again.begin, again.image_size) == (40, SIZE)
    for name, value in stored.state_dict().items():
        other = again.state_dict()[name]
        assert value == other if name == "begin" else torch.equal(value, other), name
