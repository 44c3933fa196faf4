"""One square for the whole clip: where it lies in each frame, and pictures cut out by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Shaped

WANDERING = 1.3
"""The crop follows an object whose way through the picture is this many times longer than the object itself."""
SMOOTHNESS = 0.1
"""Standard deviation of the Gaussian that smooths the track of the crop, as a share of the number of frames."""

Boxes = Float64[np.ndarray, "frames 4"]
"""Left, top, right and bottom of the object in each frame; right and bottom are exclusive."""


@dataclass(frozen=True)
class Square:
    """A square in the pixels of a picture; parts of it may lie outside."""

    left: int
    top: int
    side: int

    def take(
        self, image: Shaped[np.ndarray, "h w *c"], out: int, replicate: bool = False
    ) -> Shaped[np.ndarray, "s s *c"]:
        """The square at `out` x `out` pixels: averaged over areas to shrink, linear to enlarge.

        Args:
            image: The picture.
            out: Side of the result.
            replicate: Outside of the picture, repeat its border; otherwise there are zeros.
        """
        import cv2

        rows, columns = np.arange(self.top, self.top + self.side), np.arange(self.left, self.left + self.side)
        height, width = image.shape[:2]
        square = image[rows.clip(0, height - 1)[:, None], columns.clip(0, width - 1)]
        if not replicate:
            square[(rows < 0) | (rows >= height)] = 0
            square[:, (columns < 0) | (columns >= width)] = 0
        shrink = cv2.INTER_AREA if out <= self.side else cv2.INTER_LINEAR
        return square if out == self.side else cv2.resize(square, (out, out), interpolation=shrink)

    def inside(self, size: tuple[int, int], out: int) -> tuple[slice, slice]:
        """Rows and columns of the square, at `out` x `out` pixels, that lie inside of a picture of height x width."""
        scale = out / self.side
        return tuple(  # type: ignore[return-value]
            slice(max(0, round(-start * scale)), min(out, round((length - start) * scale)))
            for start, length in zip((self.top, self.left), size, strict=True)
        )


def box_of(mask: Bool[np.ndarray, "h w"]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a mask that is not empty; right and bottom are exclusive."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def crop_track(boxes: Boxes, mode: Literal["auto", "fixed", "moving"]) -> tuple[Float64[np.ndarray, "frames 2"], float]:
    """Centre of the crop in each frame (x, y), and the side of the smallest square around it that holds the object.

    Args:
        boxes: Where the object is.
        mode: Whether the crop follows the object; `auto` does so if it wanders.
    """
    centres = np.repeat(_centre(union(boxes))[None], len(boxes), axis=0)
    if mode == "moving" or (mode == "auto" and wanders(boxes)):
        from scipy.ndimage import gaussian_filter1d

        each = (boxes[:, :2] + boxes[:, 2:]) / 2
        centres = gaussian_filter1d(each, max(1.0, SMOOTHNESS * len(boxes)), axis=0, mode="nearest")
    reach = max(float((centres - boxes[:, :2]).max()), float((boxes[:, 2:] - centres).max()))
    return centres, 2 * reach


def wanders(boxes: Boxes) -> bool:
    """Whether the object's way through the picture is long for its size."""
    longest = float((boxes[:, 2:] - boxes[:, :2]).max())
    left, top, right, bottom = union(boxes)
    return max(right - left, bottom - top) > WANDERING * longest


def union(boxes: Boxes) -> Float64[np.ndarray, "4"]:
    """The smallest box around all boxes."""
    return np.concatenate((boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)))


def _centre(box: Float64[np.ndarray, "4"]) -> Float64[np.ndarray, "2"]:
    return (box[:2] + box[2:]) / 2


def square_around(centre: Float64[np.ndarray, "2"], side: float) -> Square:
    """The square of whole pixels around a point."""
    whole = max(2, round(side))
    left, top = np.round(centre - whole / 2).astype(int)
    return Square(int(left), int(top), whole)
