"""Rasterisation: the visible triangle at every sample, for all images of a batch at once.

Every image has a list of triangles of its own. On CUDA one Triton kernel goes through them for square tiles of samples,
skipping blocks of triangles that miss the tile; elsewhere torch does the same in plain arithmetic (slow; for tests).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor

from consistent4d_ns.device.kernels import launch

TILE = 32
"""Samples along each side of a tile."""
BLOCK = 16
"""Triangles that a program tests together."""
NONE = -1
"""Index of no triangle."""


@dataclass(frozen=True)
class ScreenTriangles:
    """Triangles as affine functions of the sample coordinates (x right, y down, in samples): a x + b y + c."""

    planes: Float[Tensor, "triangles 3 3"]
    """(a, b, c) of the first two barycentric coordinates on the screen and of the inverse depth."""
    bounds: Float[Tensor, "triangles 4"]
    """Minimum x, maximum x, minimum y, maximum y."""


def screen_triangles(
    corners: Float[Tensor, "triangles 3 3"], focal: Float[Tensor, " triangles"], side: int
) -> ScreenTriangles:
    """Project triangles.

    Args:
        corners: In camera coordinates (x right, y up, looking along -z), all in front of the camera.
        focal: Focal length in samples.
        side: Samples along each side of the square image.
    """
    inverse = 1.0 / -corners[..., 2]
    scale = focal[:, None] * inverse
    x, y = 0.5 * side + corners[..., 0] * scale, 0.5 * side - corners[..., 1] * scale
    (x0, x1, x2), (y0, y1, y2) = x.unbind(-1), y.unbind(-1)
    area = (x0 - x2) * (y1 - y2) - (x1 - x2) * (y0 - y2)
    visible = area.abs() > 1e-6
    area = torch.where(visible, area, torch.ones_like(area))
    first = _affine((y1 - y2) / area, (x2 - x1) / area, x2, y2)
    second = _affine((y2 - y0) / area, (x0 - x2) / area, x2, y2)
    # Triangles seen edge-on have a barycentric coordinate that is negative everywhere.
    first = torch.where(visible[:, None], first, first.new_tensor((0.0, 0.0, -1.0)))
    i0, i1, i2 = inverse.unbind(-1)
    depth = (i0 - i2)[:, None] * first + (i1 - i2)[:, None] * second
    depth[:, 2] += i2
    bounds = torch.stack((x.amin(-1), x.amax(-1), y.amin(-1), y.amax(-1)), dim=-1)
    return ScreenTriangles(torch.stack((first, second, depth), dim=1), bounds)


def _affine(
    a: Float[Tensor, " triangles"],
    b: Float[Tensor, " triangles"],
    x: Float[Tensor, " triangles"],
    y: Float[Tensor, " triangles"],
) -> Float[Tensor, "triangles 3"]:
    """The function with slopes `a` and `b` that is zero at (x, y)."""
    return torch.stack((a, b, -(a * x + b * y)), dim=-1)


def nearest_triangles(
    triangles: ScreenTriangles, starts: Int64[Tensor, " images+1"], side: int
) -> Int32[Tensor, "images side side"]:
    """Index of the nearest triangle at the centre of every sample, `NONE` where there is none.

    Args:
        triangles: Those of the first image, then those of the second, and so on.
        starts: Index of each image's first triangle; the last entry is their number.
        side: Samples along each side of the square images, a multiple of `TILE`.
    """
    if side % TILE:
        raise ValueError(f"side {side} is not a multiple of {TILE}.")
    search = _search_with_triton if triangles.planes.is_cuda else _search_with_torch
    return search(triangles, starts, side)


def _search_with_torch(
    triangles: ScreenTriangles, starts: Int64[Tensor, " images+1"], side: int
) -> Int32[Tensor, "images side side"]:
    index = torch.full((len(starts) - 1, side, side), NONE, dtype=torch.int32, device=starts.device)
    for image, (begin, end) in enumerate(pairwise(starts.tolist())):
        best = triangles.planes.new_zeros(side, side)
        for some in range(begin, end, BLOCK):
            _search_block(triangles, some, min(some + BLOCK, end), best, index[image])
    return index


def _search_block(
    triangles: ScreenTriangles,
    begin: int,
    end: int,
    best: Float[Tensor, "side side"],
    index: Int32[Tensor, "side side"],
) -> None:
    """Update greatest inverse depth and triangle of the samples that some neighbouring triangles can cover."""
    low, high = triangles.bounds[begin:end, ::2].amin(0), triangles.bounds[begin:end, 1::2].amax(0)
    left, top = low.floor().clamp(0, len(best)).int().tolist()
    right, bottom = high.ceil().clamp(0, len(best)).int().tolist()
    window = (slice(top, bottom), slice(left, right))
    y, x = (torch.arange(edge.start, edge.stop, device=best.device) + 0.5 for edge in window)
    a, b, c = triangles.planes[begin:end, :, :, None, None].unbind(2)
    b0, b1, inverse = (a * x + b * y[:, None] + c).unbind(1)
    nearest, which = torch.where((b0 >= 0) & (b1 >= 0) & (b0 + b1 <= 1), inverse, 0.0).max(0)
    index[window] = torch.where(nearest > best[window], (which + begin).int(), index[window])
    best[window] = torch.maximum(nearest, best[window])


def _search_with_triton(
    triangles: ScreenTriangles, starts: Int64[Tensor, " images+1"], side: int
) -> Int32[Tensor, "images side side"]:
    from training import rasterize_kernel

    images = len(starts) - 1
    index = torch.empty(images, side, side, dtype=torch.int32, device=starts.device)
    tiles = side // TILE
    # Planes as nine rows: neighbouring triangles lie next to each other.
    planes, bounds = triangles.planes.flatten(1).T.contiguous(), triangles.bounds.T.contiguous()
    sizes = len(triangles.planes), side, TILE, BLOCK
    launch(rasterize_kernel.search, (tiles * tiles, images), planes, bounds, starts, index, *sizes)
    return index
