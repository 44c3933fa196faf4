"""Decodes the frames of a segmented video and fits them to a square (method.md section 2).

Unlike the original, frames keep their aspect ratio (quirk 3), are resized with premultiplied alpha so that the colours
of transparent pixels do not bleed into the edge (quirk 4), and keep a soft mask (quirk 5).
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float16, Float32, Shaped
from torch import Tensor

from consistent4d_ns.data.files import by
from consistent4d_ns.data.images import premultiply, resize_area, square_pad, unit_range
from consistent4d_ns.data.listing import FrameList
from consistent4d_ns.data.mattes import Defect, MatteReport, alpha_defects, check_alpha, colour_exceeds_alpha
from consistent4d_ns.data.stills import read_animation, read_still, still_size
from consistent4d_ns.data.videos import VIDEO_TYPES, read_video
from consistent4d_ns.errors import InputError

THREADS = 4
"""Images decoded at the same time."""
AHEAD = 2 * THREADS
"""Images that are decoded before they are asked for."""
LARGE = 2048 * 2048
"""Pixels above which images are decoded one at a time: one of 8192 x 8192 takes 1.4 GB while it is processed."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FittedFrame:
    """A frame after padding and resizing."""

    where: str
    """Name of the frame in messages."""
    size: tuple[int, int]
    """Height and width before it was fitted."""
    image: Float32[np.ndarray, "size size 4"]
    """Premultiplied RGBA in [0, 1]."""
    defects: frozenset[Defect]
    """Suspicious properties of its alpha channel."""


def decode_frames(
    frames: FrameList,
    image_size: int,
    warn: Callable[[str], object] = _logger.warning,
    into: Float16[Tensor, "frames 4 size size"] | None = None,
) -> Float16[Tensor, "frames 4 size size"]:
    """Decode the chosen frames into premultiplied RGBA in [0, 1], each padded to a square and resized to `image_size`.

    float16 is within 2^-12 of the exact value, a sixteenth of an 8-bit step.

    Args:
        frames: Which frames.
        image_size: Side of the result in pixels.
        warn: Called with one line for each kind of suspicious alpha channel.
        into: Where the result is written; None makes a new tensor.

    Raises:
        InputError: A frame is damaged, too large, of another size than the first, without alpha, empty or opaque.
    """
    decoded = torch.empty(len(frames), 4, image_size, image_size, dtype=torch.float16) if into is None else into
    report = MatteReport()
    first: FittedFrame | None = None
    for i, frame in enumerate(_fitted_frames(frames, image_size)):
        first = first or frame
        if frame.size != first.size:
            raise InputError(
                f"{frame.where} is {by(frame.size)} but {frames.names[0]} is {by(first.size)}: give all frames one size"
            )
        report.add(frame.where, frame.defects)
        decoded[i] = torch.from_numpy(frame.image).permute(2, 0, 1)
    for line in report.lines():
        warn(line)
    return decoded


def source_side(frames: FrameList) -> int:
    """The longer side of the first frame in pixels, as it is in its file.

    Raises:
        InputError: It cannot be read.
    """
    if frames.source.is_dir():
        return max(still_size(frames.paths[0]))
    read = read_video if frames.source.suffix.lower() in VIDEO_TYPES else read_animation
    return max(next(iter(read(frames.source, frames.indices[:1]))).shape[:2])


def _fitted_frames(frames: FrameList, image_size: int) -> Iterator[FittedFrame]:
    """All chosen frames, checked and fitted."""

    def fit(rgba: Shaped[np.ndarray, "h w 4"], where: str) -> FittedFrame:
        return _fit(rgba, where, image_size, frames)

    if frames.source.is_dir():
        with ThreadPoolExecutor(_threads(frames.paths)) as pool:
            yield from _map_ahead(pool, lambda path: fit(read_still(path), str(path)), frames.paths)
    else:
        video = frames.source.suffix.lower() in VIDEO_TYPES
        images = (read_video if video else read_animation)(frames.source, frames.indices)
        for index, image in zip(frames.indices, images, strict=True):
            yield fit(image, f"{frames.source} (frame {index})")


def _map_ahead(
    pool: ThreadPoolExecutor, fit: Callable[[Path], FittedFrame], paths: list[Path]
) -> Iterator[FittedFrame]:
    """As `pool.map`, but with no more than `AHEAD` frames waiting: thousands of them would fill the memory."""
    waiting: deque[Future[FittedFrame]] = deque()
    for path in paths:
        waiting.append(pool.submit(fit, path))
        if len(waiting) >= AHEAD:
            yield waiting.popleft().result()
    yield from (each.result() for each in waiting)


def _threads(paths: list[Path]) -> int:
    """How many image files to decode at the same time; reads their headers only."""
    return 1 if any(math.prod(still_size(path)) > LARGE for path in paths) else THREADS


def _fit(rgba: Shaped[np.ndarray, "h w 4"], where: str, image_size: int, frames: FrameList) -> FittedFrame:
    """Check an RGBA image; premultiply, pad and resize it."""
    defects: frozenset[Defect] = frozenset()
    if frames.premultiplied:
        image = unit_range(rgba)
        if colour_exceeds_alpha(image):
            defects |= {Defect.NOT_PREMULTIPLIED}
        np.minimum(image[..., :3], image[..., 3:], out=image[..., :3])
    else:
        image = premultiply(rgba)
    check_alpha(image[..., 3], where, frames.source)
    defects |= alpha_defects(image[..., 3])
    height, width = rgba.shape[:2]
    return FittedFrame(where, (height, width), resize_area(square_pad(image), image_size), defects)
