"""What counts as background, and what cleaning keeps, on drawn images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from consistent4d_ns.targets.silhouettes import background, cleaned, smooth_step

COLOUR = torch.tensor([0.8, 0.2, 0.4])[:, None, None]


def on_white(opacity: Tensor) -> Tensor:
    """One colour of a given opacity."""
    return COLOUR * opacity[:, None] + (1 - opacity[:, None])


def ring() -> Tensor:
    """Opacity of a square ring with a hole."""
    opacity = torch.zeros(1, 16, 16)
    opacity[0, 3:13, 3:13] = 1
    opacity[0, 6:10, 6:10] = 0
    return opacity


def test_background_is_white_that_reaches_the_border():
    """The white hole counts as object, as white parts of an object do."""
    expected = torch.ones(1, 16, 16, dtype=torch.bool)
    expected[0, 3:13, 3:13] = False
    assert torch.equal(background(on_white(ring()), 0.04), expected)


def test_background_may_be_almost_white():
    images = on_white(ring())
    images[:, 1, :, :2] = 0.97
    assert background(images, 0.04)[0, :, :2].all()
    assert not background(images, 0.02)[0, :, :2].any()


def test_each_image_has_its_own_background():
    images = torch.cat((on_white(ring()), torch.ones(1, 3, 16, 16), torch.zeros(1, 3, 16, 16)))
    found = background(images, 0.04)
    assert [int(part.sum()) for part in found] == [156, 256, 0]


def test_hard_edges_keep_the_colour_and_drop_what_is_thin_or_small():
    opacity = 0.9 * ring()
    opacity[0, :, 14] = 0.3  # haze
    opacity[0, 0, 0] = 1.0  # a speck
    rgb, cut = cleaned(on_white(opacity), opacity, (0.5, 0.5), 0.1)
    assert torch.equal(cut, ring())
    torch.testing.assert_close(rgb, on_white(ring()))


def test_large_parts_stay():
    opacity = torch.zeros(1, 16, 16)
    opacity[0, 2:6, 2:6] = opacity[0, 10:12, 10:12] = 1
    assert torch.equal(cleaned(on_white(opacity), opacity, (0.5, 0.5), 0.25)[1], opacity)
    assert int(cleaned(on_white(opacity), opacity, (0.5, 0.5), 0.3)[1].sum()) == 16


def test_soft_edges_fade():
    """Along a row, opacity falls over six pixels; two pixels beyond the half-opaque ones may fade."""
    opacity = torch.zeros(1, 9, 16)
    opacity[0, :, :10] = 1
    opacity[0, :, 10:16] = torch.tensor([0.8, 0.65, 0.5, 0.4, 0.35, 0.3])
    rgb, soft = cleaned(on_white(opacity), opacity, (0.2, 0.8), 0.1)
    x = torch.tensor([0.8, 0.65, 0.5, 0.4, 0.35, 0.3])
    expected = smooth_step(x, 0.2, 0.8) * torch.tensor([1, 1, 1, 1, 0, 0])
    torch.testing.assert_close(soft[0, 4, 10:], expected)
    torch.testing.assert_close(rgb, on_white(soft))


def test_smooth_step_by_hand():
    values = smooth_step(torch.tensor([0.0, 0.2, 0.35, 0.5, 0.8, 1.0]), 0.2, 0.8)
    assert values.tolist() == pytest.approx([0, 0, 0.15625, 0.5, 1, 1], abs=1e-6)


def test_nothing_stays_nothing():
    rgb, opacity = cleaned(torch.ones(2, 3, 8, 8), torch.zeros(2, 8, 8), (0.5, 0.5), 0.1)
    assert torch.equal(rgb, torch.ones(2, 3, 8, 8))
    assert not opacity.any()
