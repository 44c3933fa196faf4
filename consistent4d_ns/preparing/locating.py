"""The first pass: where the object is in each frame, on small pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from consistent4d_ns.preparing.cropping import Boxes, box_of
from consistent4d_ns.preparing.foreground import Foreground
from consistent4d_ns.preparing.objects import Hint, track_object, with_satellites
from consistent4d_ns.preparing.options import ObjectOptions
from consistent4d_ns.preparing.refining import refine
from consistent4d_ns.preparing.segmentation import Segmenter

SMALL = 448
"""Longer side in pixels of the pictures on which the object is looked for and masks are refined."""

Progress: TypeAlias = Callable[[Iterable[Any], str, int], Iterable[Any]]
"""Iterates over items while a bar with this label shows how many of them are done."""


@dataclass(frozen=True)
class Looks:
    """A first look at the frames."""

    images: list[UInt8[np.ndarray, "h w 3"]]
    """Small pictures of them."""
    sure: list[Float32[np.ndarray, "h w"]]
    """How sure files or the network are that something is foreground, in [0, 1]."""
    scale: float
    """Pixels of a small picture per pixel of a frame."""


@dataclass(frozen=True)
class Located:
    """The object in small pictures of the frames."""

    images: list[UInt8[np.ndarray, "h w 3"]]
    """The frames."""
    guesses: list[Float32[np.ndarray, "h w"]]
    """How sure it is that something is foreground, in [0, 1], frame by frame."""
    masks: list[Bool[np.ndarray, "h w"]]
    """The object; empty where it is not seen."""
    others: list[Bool[np.ndarray, "h w"]]
    """What else is foreground."""
    scale: float
    """Pixels of a small picture per pixel of a frame."""

    def boxes(self) -> Boxes:
        """Where the object is, in pixels of the frames; it is in every one."""
        return np.array([box_of(mask) for mask in self.masks]) / self.scale

    def seen(self) -> list[int]:
        """The frames in which there is something."""
        return [i for i, mask in enumerate(self.masks) if mask.any()]

    def only(self, places: Sequence[int]) -> Located:
        """The same for some of the frames."""
        images, guesses, masks, others = (
            [items[i] for i in places] for items in (self.images, self.guesses, self.masks, self.others)
        )
        return Located(images, guesses, masks, others, self.scale)


def look(foreground: Foreground, segmenter: Segmenter | None, progress: Progress) -> Looks:
    """Small pictures of all frames, with what files or a network say about them.

    Raises:
        InputError: A frame is damaged.
    """
    scale = min(1.0, SMALL / max(foreground.clip.size))
    images, sure = [], []
    for rgb, known in progress(foreground.layers(), "Finding the object", len(foreground.clip)):
        images.append(shrunk(rgb, scale))
        if known is not None:
            sure.append(shrunk(known, scale).astype(np.float32) / 255)
        else:
            assert segmenter is not None
            sure.append(segmenter(images[-1]))
    return Looks(images, sure, scale)


def locate(foreground: Foreground, looks: Looks, options: ObjectOptions, progress: Progress) -> Located:
    """Find the object that is meant in all frames.

    Raises:
        InputError: Nothing is where a hint says.
    """
    images, guesses = looks.images, looks.sure
    agreed = guesses
    if foreground.kind == "network":
        guesses = [biased(one, options.threshold) for one in guesses]
        agreed = refine(images, guesses, steps=lambda frames: progress(frames, "Comparing frames", len(images)))
    masks = [one > 0.5 for one in agreed]
    hint = Hint(options.point, options.box).scaled(looks.scale)
    if foreground.kind in ("alpha", "masks") and not (hint.given and foreground.number is None):
        nothing = [np.zeros_like(mask) for mask in masks]
        return Located(images, guesses, [with_satellites(mask) for mask in masks], nothing, looks.scale)
    objects = track_object(masks, hint)
    others = [mask & ~one for mask, one in zip(masks, objects, strict=True)]
    return Located(images, guesses, objects, others, looks.scale)


def biased(sure: Float32[np.ndarray, "h w"], threshold: float) -> Float32[np.ndarray, "h w"]:
    """How sure a network is, so that `threshold` becomes 0.5."""
    odds = sure.clip(1e-4, 1 - 1e-4)
    odds = odds / (1 - odds) * (1 - threshold) / threshold
    return odds / (1 + odds)


def shrunk(image: UInt8[np.ndarray, "h w *c"], scale: float) -> UInt8[np.ndarray, "h2 w2 *c"]:
    """A picture at a scale of at most 1."""
    import cv2

    height, width = image.shape[:2]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return image if scale == 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
