"""A soft matte along the border of a mask, and colours of the object without those of the background."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

from consistent4d_ns.errors import InputError
from consistent4d_ns.preparing.segmentation import INSTALL, imported

BAND = 0.012
"""Half the width of the border in which the matte is estimated, as a share of the square root of the object's area."""
CLEAR = 0.02
"""Alpha this near to 0 or 1 becomes 0 or 1."""
MARGIN = 8
"""Pixels around the object that are looked at."""


def check_matting() -> None:
    """Raises: InputError: the library for mattes is not installed, or broken."""
    if find_spec("pymatting") is None:
        raise InputError(f"cutting an object out needs the extra `prepare`: {INSTALL}; or give frames with alpha")
    imported("pymatting")


def cut_out(rgb: UInt8[np.ndarray, "h w 3"], soft: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w 4"]:
    """An object as straight RGBA in [0, 1], the colours of its border free of the background's.

    Alpha at the border is closed-form matting (Levin et al. 2008), colours come from a multi-level estimate (Germer et
    al. 2020), both by PyMatting.

    Args:
        rgb: The picture.
        soft: How far each pixel belongs to the object, in [0, 1]; above 0.5 it does.
    """
    from pymatting import estimate_alpha_cf, estimate_foreground_ml, ichol

    result = np.zeros((*soft.shape, 4), np.float32)
    window = _around(soft > 0.5)
    image, trimap = rgb[window] / 255.0, trimap_of(soft[window])
    alpha = trimap
    if 0.0 in trimap and 1.0 in trimap and 0.5 in trimap:
        # The shift keeps the preconditioner from failing, which it would print.
        alpha = estimate_alpha_cf(image, trimap, preconditioner=partial(ichol, shifts=[5e-3, 1e-2, 0.1, 1.0, 10.0]))
    alpha = ((alpha - CLEAR) / (1 - 2 * CLEAR)).clip(0, 1)
    result[window] = np.dstack((estimate_foreground_ml(image, alpha), alpha))
    result[result[..., 3] == 0] = 0
    return result


def trimap_of(soft: Float32[np.ndarray, "h w"]) -> Float64[np.ndarray, "h w"]:
    """0 for background, 1 for object, 0.5 along the border between them."""
    import cv2

    mask = (soft > 0.5).astype(np.uint8)
    reach = max(2, round(BAND * float(mask.sum()) ** 0.5))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    trimap = np.full(soft.shape, 0.5)
    # At the border of the picture neither changes anything: the object may go on outside of it.
    trimap[cv2.erode(mask, kernel) == 1] = 1
    trimap[cv2.dilate(mask, kernel) == 0] = 0
    return trimap


def _around(mask: Bool[np.ndarray, "h w"]) -> tuple[slice, slice]:
    """Rows and columns of a mask with a margin; all where it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return slice(None), slice(None)
    margin = MARGIN + round(2 * BAND * float(mask.sum()) ** 0.5)
    return (
        slice(max(rows[0] - margin, 0), rows[-1] + margin + 1),
        slice(max(columns[0] - margin, 0), columns[-1] + margin + 1),
    )
