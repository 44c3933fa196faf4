"""Rasterisation of triangles: pure functions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

CHUNK = 1 << 22
"""Pixels that are tested at a time."""
FLAT = 1e-12
"""Twice the area in square pixels below which a triangle covers nothing."""


@dataclass(frozen=True)
class Fragments:
    """Pairs of a triangle and a pixel whose centre it covers, in no order."""

    triangle: Int64[Tensor, " fragments"]
    """Index of the triangle."""
    pixel: Int64[Tensor, " fragments"]
    """Flat index of the pixel (row * width + column)."""
    weights: Float[Tensor, "fragments 3"]
    """Barycentric coordinates of the pixel centre on the plane of the image, >= 0, summing to 1."""


def cover(corners: Float[Tensor, "triangles 3 2"], width: int, height: int) -> Fragments:
    """Pixels covered by triangles.

    Args:
        corners: (column, row) of their corners; the centre of the first pixel is (0.5, 0.5).
        width: Pixels in a row.
        height: Rows.
    """
    size = torch.tensor((width, height), device=corners.device)
    # Pixel i has its centre at i + 0.5, so it may be covered from ceil(low - 0.5) to floor(high - 0.5).
    low = torch.minimum((corners.amin(dim=1) - 0.5).ceil().clamp(min=0).long(), size)
    high = torch.minimum((corners.amax(dim=1) - 0.5).floor().long() + 1, size)
    columns, rows = (high - low).clamp(min=0).unbind(dim=-1)
    begin = 0
    found = []
    ends = (columns * rows).cumsum(dim=0)
    while begin < len(corners):
        done = ends[begin - 1] if begin else ends.new_zeros(())
        end = max(begin + 1, int(torch.searchsorted(ends, done + CHUNK, right=True)))
        some = slice(begin, end)
        found.append(_cover_some(corners[some], low[some], columns[some], rows[some], begin, width))
        begin = end
    if not found:
        empty = torch.zeros(0, dtype=torch.long, device=corners.device)
        return Fragments(empty, empty, corners.new_zeros(0, 3))
    return Fragments(
        torch.cat([f.triangle for f in found]),
        torch.cat([f.pixel for f in found]),
        torch.cat([f.weights for f in found]),
    )


def pixels_of(
    low: Int64[Tensor, "rectangles 2"], columns: Int64[Tensor, " rectangles"], rows: Int64[Tensor, " rectangles"]
) -> tuple[Int64[Tensor, " pixels"], Int64[Tensor, " pixels"], Int64[Tensor, " pixels"]]:
    """All pixels of rectangles, one rectangle after the other: index of the rectangle, column, row.

    Args:
        low: First (column, row) of each.
        columns: Pixels in a row.
        rows: Rows.
    """
    counts = columns * rows
    index = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    place = torch.arange(len(index), device=counts.device) - (counts.cumsum(0) - counts)[index]
    return index, low[index, 0] + place % columns[index], low[index, 1] + place // columns[index]


def _cover_some(
    corners: Float[Tensor, "triangles 3 2"],
    low: Int64[Tensor, "triangles 2"],
    columns: Int64[Tensor, " triangles"],
    rows: Int64[Tensor, " triangles"],
    first: int,
    width: int,
) -> Fragments:
    """Test every pixel of every triangle's bounding box."""
    triangle, column, row = pixels_of(low, columns, rows)
    a, b, c = corners[triangle].unbind(dim=1)
    p = torch.stack((column, row), dim=-1) + 0.5
    area = _cross(b - a, c - a)
    safe = torch.where(area.abs() > FLAT, area, torch.ones_like(area))
    weights = torch.stack((_cross(c - b, p - b), _cross(a - c, p - c), _cross(b - a, p - a)), dim=-1) / safe[:, None]
    keep = (weights >= 0).all(dim=-1) & (area.abs() > FLAT)
    return Fragments(triangle[keep] + first, (row * width + column)[keep], weights[keep])


def _cross(a: Float[Tensor, "n 2"], b: Float[Tensor, "n 2"]) -> Float[Tensor, " n"]:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
