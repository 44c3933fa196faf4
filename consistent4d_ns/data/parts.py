"""Connected parts of masks, of any number of dimensions."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int32


def large_parts(inside: Bool[np.ndarray, "*grid"], share: float) -> Bool[np.ndarray, "*grid"]:
    """The connected parts whose volume is at least `share` times that of the largest one."""
    if share <= 0:
        return inside
    parts = numbered(inside)
    volumes = np.bincount(parts.ravel())
    volumes[0] = 0
    return (volumes >= share * volumes.max())[parts] & inside


def largest_part(inside: Bool[np.ndarray, "*grid"]) -> Bool[np.ndarray, "*grid"]:
    """The connected part of the largest volume; of several that are equally large, the first."""
    parts = numbered(inside)
    volumes = np.bincount(parts.ravel())
    volumes[0] = 0
    return (parts == volumes.argmax()) & inside


def reaching_the_border(mask: Bool[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
    """The connected parts of an image's mask that touch its border."""
    parts = numbered(mask)
    edges = (parts[0], parts[-1], parts[:, 0], parts[:, -1])
    return np.isin(parts, np.concatenate(edges)) & mask


def numbered(mask: Bool[np.ndarray, "*grid"]) -> Int32[np.ndarray, "*grid"]:
    """The number of the part that each cell belongs to, from 1; 0 outside. Parts are connected across faces only."""
    from scipy.ndimage import label

    parts, _ = label(mask)  # pyright: ignore[reportGeneralTypeIssues]
    return np.asarray(parts, dtype=np.int32)
