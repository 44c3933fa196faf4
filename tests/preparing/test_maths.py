"""The object through time, its crop, evidence from the background, the matte."""

from __future__ import annotations

import numpy as np
import pytest

from consistent4d_ns.errors import InputError
from consistent4d_ns.preparing.background import background_motion, object_evidence
from consistent4d_ns.preparing.cropping import Square, crop_track
from consistent4d_ns.preparing.objects import Hint, track_object
from consistent4d_ns.preparing.refining import refine, without_holes
from tests.preparing.clips import discs, needs_matting, over, texture


def test_the_largest_object_through_time() -> None:
    """Not the one that is largest in one frame only."""
    small, large = discs(6, left=20, radius=8, step=1) > 0.5, discs(6, left=90, radius=14, step=-1) > 0.5
    flash = discs(1, left=40, radius=24)[0] > 0.5
    masks = list(small | large)
    masks[3] = masks[3] | (flash & ~large[3])
    assert np.array_equal(track_object(masks, Hint()), large)
    masks[3] = small[3] | large[3]
    assert np.array_equal(track_object(masks, Hint(point=(20, 48))), small)
    assert np.array_equal(track_object(masks, Hint(box=(5, 30, 40, 70))), small)


def test_an_object_that_disappears_for_a_frame() -> None:
    masks = list(discs(5) > 0.5)
    masks[2] = np.zeros_like(masks[2])
    found = track_object(masks, Hint())
    assert [bool(mask.any()) for mask in found] == [True, True, False, True, True]


@pytest.mark.parametrize("hint", [Hint(point=(2, 2)), Hint(point=(500, 2)), Hint(box=(0, 0, 9, 9))])
def test_a_hint_at_nothing(hint: Hint) -> None:
    with pytest.raises(InputError, match=r"--point|--box"):
        track_object(list(discs(3) > 0.5), hint)


@pytest.mark.parametrize("mode", ["auto", "fixed", "moving"])
def test_no_crop_cuts_anything_off(mode: str) -> None:
    rng = np.random.default_rng(3)
    corner = rng.uniform(0, 300, (20, 2)).cumsum(axis=0) / 10
    boxes = np.concatenate((corner, corner + rng.uniform(20, 60, (20, 2))), axis=1)
    centres, side = crop_track(boxes, mode)  # type: ignore[arg-type]
    assert (boxes[:, :2] >= centres - side / 2 - 1e-9).all()
    assert (boxes[:, 2:] <= centres + side / 2 + 1e-9).all()


def test_squares_beyond_the_picture() -> None:
    image = np.arange(48, dtype=np.uint8).reshape(6, 8)
    square = Square(-2, 3, 5).take(image, 5)
    assert np.array_equal(square[:3, 2:], image[3:, :3])
    assert square[3:].max() == square[:, :2].max() == 0
    assert Square(-2, 3, 5).take(image, 5, replicate=True)[4, 0] == image[5, 0]
    assert Square(-2, 3, 5).inside((6, 8), 5) == (slice(0, 3), slice(2, 5))
    assert Square(50, 50, 4).take(image, 4).shape == (4, 4)


def panning(count: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """A disc that stands still before a background that moves to the left by 8 pixels per frame, and its mask."""
    wide = texture(96, 200)
    backgrounds = np.stack([wide[:, 8 * i : 8 * i + 128] for i in range(count)])
    alpha = discs(count, step=0, left=64)
    return over(alpha, backgrounds), alpha > 0.5


def test_what_moves_with_the_background_is_background() -> None:
    images, masks = panning()
    unsure = list(np.where(masks, 0.6, 0.1).astype(np.float32))
    motions = background_motion(list(images), unsure)
    assert motions[-1][:2, 2] == pytest.approx([-56, 0], abs=1)
    evidence = object_evidence(list(images), unsure)[4]
    inner = discs(1, step=0, left=64, radius=16)[0] > 0.5
    assert np.median(evidence[inner]) > 0.8
    assert np.median(evidence[~masks[4]]) < -0.8
    assert not np.any(object_evidence(list(images[:2]), unsure[:2]))  # Two frames are too few to tell.


def test_refining_mends_what_flickers() -> None:
    """Guesses that lack a half of the disc in one frame, and hold a blotch of the background in another."""
    images, masks = panning()
    guesses = np.where(masks, 0.9, 0.05).astype(np.float32)
    guesses[3, :, 64:] = np.where(masks[3, :, 64:], 0.35, 0.05)
    guesses[5, 70:94, 8:30] = 0.6
    refined = np.stack(refine(list(images), list(guesses))) > 0.5
    for found, true in zip(refined, masks, strict=True):
        assert (found & true).sum() / (found | true).sum() > 0.95


def test_small_holes_are_closed_and_large_ones_kept() -> None:
    disc = discs(1, radius=40)[0] > 0.5
    holed = disc.copy()
    holed[40:44, 40:44] = False
    assert np.array_equal(without_holes(holed), disc)
    ring = disc & ~(discs(1, radius=20)[0] > 0.5)
    assert np.array_equal(without_holes(ring), ring)


@needs_matting
def test_the_matte_is_soft_where_the_picture_is() -> None:
    from consistent4d_ns.preparing.matting import cut_out

    alpha = discs(1, radius=30)[0]
    rgba = cut_out(
        over(alpha[None], np.full((96, 128, 3), (230, 230, 40), np.uint8))[0], (alpha > 0.5).astype(np.float32)
    )
    border = (alpha > 0.1) & (alpha < 0.9)
    assert np.abs(rgba[..., 3] - alpha)[border].mean() < 0.1
    assert (rgba[..., 3][alpha == 0] < 0.1).all()
    assert np.abs(rgba[border][:, :3] * 255 - (200, 40, 30)).mean() < 20
