"""Connected parts of masks, of any number of dimensions."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool


def large_parts(inside: Bool[np.ndarray, "*grid"], share: float) -> Bool[np.ndarray, "*grid"]:
    """The connected parts whose volume is at least `share` times that of the largest one."""
    from scipy.ndimage import label

    if share <= 0:
        return inside
    parts, _ = label(inside)  # pyright: ignore[reportGeneralTypeIssues]
    volumes = np.bincount(parts.ravel())
    volumes[0] = 0
    return (volumes >= share * volumes.max())[parts] & inside


def reaching_the_border(mask: Bool[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
    """The connected parts of an image's mask that touch its border."""
    from scipy.ndimage import label

    parts, count = label(mask)  # pyright: ignore[reportGeneralTypeIssues]
    touching = np.zeros(count + 1, dtype=bool)
    for edge in (parts[0], parts[-1], parts[:, 0], parts[:, -1]):
        touching[edge] = True
    return touching[parts] & mask
