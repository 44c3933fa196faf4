"""From a network's guess about each frame to masks that agree with each other and with the edges of the pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from consistent4d_ns.data.parts import numbered
from consistent4d_ns.preparing.background import Colours, Maps, object_evidence

WINDOW = 5
"""Frames before and after that vote about a pixel."""
LEAST_SIDE = 32
"""Pixels in each direction that optical flow needs; smaller pictures are continued."""
SIMILAR = 8.0
"""Difference in colour, in 8-bit steps, beyond which a pixel of another frame is not the same point."""
WEIGHT = 3.0
"""Weight of the evidence from the background's motion, in log odds."""
CERTAIN = 0.95
"""How sure a guess has to be so that edges and colours do not overrule it."""
ROUNDS = 3
"""Iterations of graph cuts and colour models."""
HOLE = 0.01
"""Share of the object's area up to which a hole in it is closed; larger ones may be gaps between limbs."""

Steps = Callable[[Iterable[int]], Iterable[int]]
"""Iterates over the numbers of frames, for example showing a bar."""


def refine(images: Colours, guesses: Maps, rounds: int = 1, steps: Steps = iter) -> list[Float32[np.ndarray, "h w"]]:
    """How far each pixel belongs to the object, in [0, 1], from guesses about single frames.

    Args:
        images: Frames of a clip.
        guesses: A network's guess about each, in [0, 1].
        rounds: How often masks are drawn; the second time with the background that the first masks leave.
        steps: Called with the numbers of the frames, in each round.
    """
    voted = through_time(images, guesses)
    known = voted
    agreed = through_time(images, _with_evidence(images, voted, known))
    for i in range(rounds):
        cut = [snapped(images[frame], agreed[frame]) for frame in steps(range(len(images)))]
        known = through_time(images, cut)
        if i + 1 < rounds:
            mixed = [(guess + one) / 2 for guess, one in zip(voted, known, strict=True)]
            agreed = _with_evidence(images, mixed, known)
    return known


def _with_evidence(images: Colours, guesses: Maps, known: Maps) -> list[Float32[np.ndarray, "h w"]]:
    """Guesses with the evidence of the background's motion, which is found outside of what is known as the object."""
    return [_added(guess, one) for guess, one in zip(guesses, object_evidence(images, known), strict=True)]


def through_time(images: Colours, maps: Maps) -> list[Float32[np.ndarray, "h w"]]:
    """Maps without flicker: each the mean of its neighbours in time, moved by optical flow to where the points are now.

    Where colours differ after the motion, a neighbour has no say.
    """
    import cv2

    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    height, width = maps[0].shape
    room = [(0, max(LEAST_SIDE - length, 0)) for length in (height, width)]
    greys = [np.pad(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), room, "edge") for image in images]
    results = []
    for i in range(len(images)):
        total, weights = maps[i].copy(), np.ones_like(maps[i])
        for j in range(max(0, i - WINDOW), min(len(images), i + WINDOW + 1)):
            if j != i:
                places = _places(flow.calc(greys[i], greys[j], None)[:height, :width])  # type: ignore[call-overload]
                weight = _similarity(images[i], _moved(images[j], places))
                total += weight * _moved(maps[j], places)
                weights += weight
        results.append(total / weights)
    return results


def snapped(image: UInt8[np.ndarray, "h w 3"], guess: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """A guess as 0 or 1, with its border where the picture has an edge: GrabCut between what is certain."""
    import cv2

    labels = np.where(guess > 0.5, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[guess > CERTAIN] = cv2.GC_FGD
    labels[guess < 1 - CERTAIN] = cv2.GC_BGD
    # It needs pixels for both colour models.
    if min((labels & 1).sum(), (labels & 1 == 0).sum()) < 64:
        return (guess > 0.5).astype(np.float32)
    cv2.setRNGSeed(0)  # Its colour models start from random clusters.
    cv2.grabCut(np.ascontiguousarray(image), labels, None, *np.zeros((2, 1, 65)), ROUNDS, cv2.GC_INIT_WITH_MASK)  # type: ignore
    return (labels & 1).astype(np.float32)


def without_holes(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """A mask with its small holes closed."""
    holes = numbered(~mask)
    areas = np.bincount(holes.ravel())
    small = areas < HOLE * mask.sum()
    small[np.unique(np.concatenate((holes[0], holes[-1], holes[:, 0], holes[:, -1])))] = False
    small[0] = False
    return mask | small[holes]


def _added(guess: Float32[np.ndarray, "h w"], evidence: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """A guess with evidence added as log odds."""
    guess = guess.clip(0.003, 0.997)
    return (1 / (1 + (1 - guess) / guess * np.exp(-WEIGHT * evidence))).astype(np.float32)


def _places(flow: Float32[np.ndarray, "h w 2"]) -> Float32[np.ndarray, "h w 2"]:
    """Where each pixel is in the other frame."""
    height, width = flow.shape[:2]
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    return flow + np.stack((columns, rows), axis=-1)


def _moved(image: np.ndarray, places: Float32[np.ndarray, "h w 2"]) -> np.ndarray:
    """An image sampled at places."""
    import cv2

    return cv2.remap(image, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]


def _similarity(a: UInt8[np.ndarray, "h w 3"], b: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
    """From 1, equal colours in a neighbourhood, to 0."""
    import cv2

    difference = cv2.blur(cv2.absdiff(a, b).astype(np.float32).mean(axis=-1), (5, 5))
    return np.exp(-np.square(difference / SIMILAR))
