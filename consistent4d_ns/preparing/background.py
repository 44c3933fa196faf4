"""What is background because it moves as the background does: evidence from the other frames of a clip.

The motion of the background is found where the object surely is not, and the frames are laid over each other by it. A
pixel that looks as the others show the background there is background, one that does not is object. This needs that
the background is seen, so that something moves: the camera, or the object.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Float64, UInt8

SURE = 0.25
"""How sure a network may be of the object where something is still taken for background."""
OTHERS = 15
"""Frames, evenly spread over the clip, that are laid over each one."""
SEEN = 2.0
"""How often the background has to be seen at a pixel."""
NOISE = 5.0
"""Standard deviation of the noise of a video, in 8-bit steps."""
USUAL, STEEP = 2.0, 1.5
"""Difference from the background, in standard deviations, that speaks neither for nor against it; and how fast it
begins to speak."""

Colours = Sequence[UInt8[np.ndarray, "h w 3"]]
Maps = Sequence[Float32[np.ndarray, "h w"]]
Motion = Float64[np.ndarray, "3 3"]


def object_evidence(images: Colours, sure: Maps) -> list[Float32[np.ndarray, "h w"]]:
    """How much each pixel differs from the background: from -1, background, to 1, object; 0 where nothing is known.

    Args:
        images: The frames.
        sure: How sure it is that a pixel belongs to the object, in [0, 1].
    """
    if len(images) < 3:
        return [np.zeros_like(one) for one in sure]
    motions = background_motion(images, sure)
    return [_evidence(images, sure, motions, i) for i in range(len(images))]


def background_motion(images: Colours, sure: Maps) -> list[Motion]:
    """Where the background of the first frame is in each frame: shift, rotation and scale as a matrix of pixels."""
    import cv2

    greys = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images]
    motions = [np.eye(3)]
    for before, after, one in zip(greys, greys[1:], sure, strict=False):
        motions.append(_motion_between(before, after, one) @ motions[-1])
    return motions


def _motion_between(before: UInt8[np.ndarray, "h w"], after: UInt8[np.ndarray, "h w"], sure: np.ndarray) -> Motion:
    """How the background moves from one frame to the next; not at all where that cannot be seen."""
    import cv2

    motion = np.eye(3)
    outside = (sure < SURE).astype(np.uint8) * 255
    corners = cv2.goodFeaturesToTrack(before, 400, 0.005, 5, mask=outside)
    if corners is None:
        return motion
    moved, found, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, None, winSize=(15, 15), maxLevel=3)  # type: ignore
    kept = found[:, 0] == 1
    if kept.sum() < 8:
        return motion
    affine, _ = cv2.estimateAffinePartial2D(corners[kept], moved[kept], ransacReprojThreshold=1.0)
    if affine is not None:
        motion[:2] = affine
    return motion


def _evidence(images: Colours, sure: Maps, motions: Sequence[Motion], i: int) -> Float32[np.ndarray, "h w"]:
    """Evidence in one frame."""
    import cv2

    mean, variance, seen = _background(images, sure, motions, i)
    squares = np.square(images[i] - mean) / (variance + NOISE**2)
    difference = cv2.GaussianBlur(np.sqrt(squares.mean(axis=-1)), (0, 0), 1.0)
    return np.where(seen >= SEEN, np.tanh((difference - USUAL) / STEEP), 0).astype(np.float32)


def _background(
    images: Colours, sure: Maps, motions: Sequence[Motion], i: int
) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"]]:
    """Mean and variance of the background of a frame as the others show it, and in how many it is seen."""
    import cv2

    height, width = sure[i].shape
    total, squares = np.zeros((2, height, width, 3), np.float32)
    seen = np.zeros((height, width, 1), np.float32)
    others = np.unique(np.linspace(0, len(images) - 1, OTHERS + 1).round().astype(int))
    for j in others[others != i]:
        here = (motions[i] @ np.linalg.inv(motions[j]))[:2]
        outside = (cv2.dilate(sure[j], np.ones((5, 5), np.uint8)) < SURE).astype(np.float32)
        weight = cv2.warpAffine(outside, here, (width, height), flags=cv2.INTER_NEAREST)[..., None]
        colour = cv2.warpAffine(images[j], here, (width, height), flags=cv2.INTER_LINEAR).astype(np.float32)
        total += weight * colour
        squares += weight * colour**2
        seen += weight
    mean = total / np.maximum(seen, 1e-6)
    return mean, np.maximum(squares / np.maximum(seen, 1e-6) - mean**2, 0), seen[..., 0]
