"""The second pass: the object in a square window of each frame, cut out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from consistent4d_ns.data.images import premultiply, resize_area
from consistent4d_ns.data.parts import largest_part
from consistent4d_ns.errors import InputError
from consistent4d_ns.preparing.cropping import Square, box_of, crop_track, square_around, union
from consistent4d_ns.preparing.foreground import Foreground
from consistent4d_ns.preparing.locating import SMALL, Located, Progress, biased, shrunk
from consistent4d_ns.preparing.matting import cut_out
from consistent4d_ns.preparing.options import PictureOptions
from consistent4d_ns.preparing.refining import refine, without_holes
from consistent4d_ns.preparing.segmentation import Segmenter

ROOM = 1.25
"""Side of a window relative to the crop: the second look at the object may find that it is larger."""
SUPERSAMPLING = 1.1
"""Most pixels of a window per pixel of the result, in each direction."""
BORDER = 2
"""Pixels of a window from the border of the picture within which the object touches it."""


@dataclass(frozen=True)
class Window:
    """A square part of a frame around the object."""

    square: Square
    rgb: UInt8[np.ndarray, "side side 3"]
    soft: UInt8[np.ndarray, "side side"]
    """How far each pixel belongs to the object, 0 to 255; from 128 on it does."""
    inside: tuple[slice, slice]
    """Its rows and columns that lie inside of the picture."""

    @property
    def scale(self) -> float:
        """Pixels of the window per pixel of the frame."""
        return len(self.rgb) / self.square.side

    @property
    def mask(self) -> Bool[np.ndarray, "side side"]:
        """What belongs to the object."""
        return self.soft > 127

    def touches_border(self) -> bool:
        """Whether the object reaches the border of the picture."""
        mask, side = self.mask, len(self.soft)
        return any(
            bool(lines[edge].any())
            for lines, part in ((mask, self.inside[0]), (mask.T, self.inside[1]))
            for edge in _edges(part, side)
        )


def _edges(part: slice, side: int) -> list[slice]:
    """The lines of a window beside the border of the picture."""
    edges = []
    if part.start > 0:
        edges.append(slice(part.start, part.start + BORDER))
    if part.stop < side:
        edges.append(slice(part.stop - BORDER, part.stop))
    return edges


@dataclass(frozen=True)
class CutOut:
    """An object cut out of a window."""

    square: Square
    """Place of the window in the frame."""
    rgba: UInt8[np.ndarray, "side side 4"]
    """Straight RGBA."""
    touches_border: bool
    """Whether the object reaches the border of the picture, so that some of it may be missing."""

    @property
    def scale(self) -> float:
        """Pixels of the window per pixel of the frame."""
        return len(self.rgba) / self.square.side


@dataclass(frozen=True)
class Cut:
    """An object cut out of one frame and cropped."""

    rgba: UInt8[np.ndarray, "size size 4"]
    """Straight RGBA."""
    crop: tuple[float, float, float]
    """Left, top and side of its square in pixels of the frame."""
    touches_border: bool
    """Whether the object reaches the border of the picture, so that some of it may be missing."""


def cut(
    foreground: Foreground,
    located: Located,
    options: PictureOptions,
    segmenter: Segmenter | None,
    threshold: float,
    progress: Progress,
) -> list[CutOut]:
    """Cut the object out of all frames; it is in every one of `located`.

    Raises:
        InputError: A frame is damaged, or the object is lost in one.
    """
    windows = _windows(foreground, located, options, segmenter, threshold, progress)
    if segmenter is not None:
        windows = _refined(windows, foreground.clip.seconds, progress)
    exact = foreground.kind == "alpha"
    return [_matted(window, exact) for window in progress(windows, "Cutting the object out", len(windows))]


def cropped(cut_outs: Sequence[CutOut], options: PictureOptions) -> list[Cut]:
    """Crop all cut-outs by one square in their windows, which the object fills as far as the options say."""
    size, crop = _crop_of_windows(cut_outs, options)
    return [_finish(one, crop, size) for one in cut_outs]


def _windows(
    foreground: Foreground,
    located: Located,
    options: PictureOptions,
    segmenter: Segmenter | None,
    threshold: float,
    progress: Progress,
) -> list[Window]:
    """Windows with a second guess about each, from a closer look."""
    centres, extent = crop_track(located.boxes(), options.crop)
    side = extent / options.fill
    out = round(min(side, options.size * SUPERSAMPLING) * ROOM)
    windows = []
    layers = progress(foreground.layers(), "Looking closer", len(foreground.clip))
    for i, (rgb, known) in enumerate(layers):
        square = square_around(centres[i], side * ROOM)
        picture = square.take(rgb, out, replicate=True)
        inside = square.inside(foreground.clip.size, out)
        first = _first_guess(located, i, square, out)
        if segmenter is not None:
            soft = _second_guess(picture, first, inside, segmenter, threshold)
        else:
            assert known is not None
            soft = square.take(known, out).astype(np.float32) / 255
        soft[_of_others(located, i, square, out)] = 0
        windows.append(Window(square, picture, _bytes(soft), inside))
    return windows


def _small_square(located: Located, square: Square) -> Square:
    """A square in pixels of the small pictures."""
    return Square(*(round(value * located.scale) for value in (square.left, square.top, square.side)))


def _first_guess(located: Located, i: int, square: Square, out: int) -> Float32[np.ndarray, "out out"]:
    """What the first pass says about a window."""
    return _small_square(located, square).take(located.guesses[i], out)


def _of_others(located: Located, i: int, square: Square, out: int) -> Bool[np.ndarray, "out out"]:
    """What the first pass has taken for other objects."""
    return _small_square(located, square).take(located.others[i].astype(np.float32), out) > 0.5


def _second_guess(
    picture: UInt8[np.ndarray, "side side 3"],
    first: Float32[np.ndarray, "side side"],
    inside: tuple[slice, slice],
    segmenter: Segmenter,
    threshold: float,
) -> Float32[np.ndarray, "side side"]:
    """The mean of the first guess and of one about the crop alone."""
    side = len(picture)
    margin = round(side * (1 - 1 / ROOM) / 2)
    near = tuple(slice(max(part.start, margin), min(part.stop, side - margin)) for part in inside)
    result = first.copy()
    result[near] = (first[near] + biased(segmenter(np.ascontiguousarray(picture[near])), threshold)) / 2
    return result


def _refined(windows: Sequence[Window], seconds: Sequence[float], progress: Progress) -> list[Window]:
    """Windows with masks that agree with each other and with the edges of the pictures: one part, without holes.

    Raises:
        InputError: Nothing is left of one.
    """
    import cv2

    scale = min(1.0, SMALL / len(windows[0].rgb))
    images = [shrunk(window.rgb, scale) for window in windows]
    guesses = [shrunk(window.soft, scale).astype(np.float32) / 255 for window in windows]
    refined = refine(images, guesses, 2, lambda frames: progress(frames, "Refining masks", len(images)))
    results = []
    for window, soft, second in zip(windows, refined, seconds, strict=True):
        soft = cv2.resize(soft, window.soft.shape[::-1], interpolation=cv2.INTER_CUBIC)
        inside = np.zeros(soft.shape, bool)
        inside[window.inside] = True
        mask = without_holes(largest_part((soft > 0.5) & inside))
        if not mask.any():
            raise InputError(
                f"the object is lost in the frame at {second:.2f} s: leave it out with --start and --end, or give "
                "--masks"
            )
        results.append(replace(window, soft=mask.astype(np.uint8) * 255))
    return results


def _bytes(values: Float32[np.ndarray, "*n"]) -> UInt8[np.ndarray, "*n"]:
    """Values in [0, 1] as bytes, which take a quarter of the memory."""
    return (values.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _matted(window: Window, exact: bool) -> CutOut:
    """The object of a window, inside of the picture; an alpha channel is kept if it is `exact`."""
    rgb, soft = window.rgb[window.inside], window.soft[window.inside] / np.float32(255)
    rgba = np.zeros((*window.soft.shape, 4), np.uint8)
    rgba[window.inside] = _bytes(np.dstack((rgb / np.float32(255), soft)) if exact else cut_out(rgb, soft))
    return CutOut(window.square, rgba, window.touches_border())


def _crop_of_windows(cut_outs: Sequence[CutOut], options: PictureOptions) -> tuple[int, Square]:
    """Side of the results, and the square of all windows that becomes them."""
    boxes = np.array([box_of(one.rgba[..., 3] > 127) for one in cut_outs if (one.rgba[..., 3] > 127).any()], float)
    left, top, right, bottom = union(boxes)
    side = max(right - left, bottom - top) / options.fill
    centre = np.array([left + right, top + bottom]) / 2 - side * np.array(options.shift)
    crop = square_around(centre, side)
    return max(1, min(options.size, round(crop.side / cut_outs[0].scale))), crop


def _finish(cut_out: CutOut, crop: Square, size: int) -> Cut:
    """A cut-out as a picture of the final size.

    Args:
        cut_out: The object in its window; outside of the window there is nothing of it.
        crop: The square of the window that is kept.
        size: Side of the result.
    """
    premultiplied = premultiply(crop.take(cut_out.rgba, crop.side))
    image = premultiplied if crop.side == size else resize_area(premultiplied, size)
    alpha = image[..., 3:].clip(0, 1)
    rgba = _bytes(np.concatenate((image[..., :3] / np.maximum(alpha, 1e-6), alpha), axis=-1))
    rgba[rgba[..., 3] == 0] = 0
    scale = cut_out.scale
    place = (cut_out.square.left + crop.left / scale, cut_out.square.top + crop.top / scale, crop.side / scale)
    return Cut(rgba, place, cut_out.touches_border)
