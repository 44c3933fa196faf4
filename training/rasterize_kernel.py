"""The search for the nearest triangle as a Triton kernel."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def search(planes, bounds, starts, index, total, side, tile: tl.constexpr, chunk: tl.constexpr):
    """Writes the nearest triangle of each sample of one tile of one image (see `rasterize.nearest_triangles`).

    Args:
        planes: [9, triangles] float32.
        bounds: [4, triangles] float32.
        starts: [images + 1] int64.
        index: [images, side, side] int32, the result.
        total: Triangles of all images.
        side: Samples along each side of an image.
        tile: Samples along each side of a tile.
        chunk: Triangles looked at together.
    """
    image = tl.program_id(1)
    tiles = side // tile
    left = (tl.program_id(0) % tiles) * tile
    top = (tl.program_id(0) // tiles) * tile
    sample = tl.arange(0, tile * tile)
    column = left + sample % tile
    row = top + sample // tile
    x = column.to(tl.float32) + 0.5
    y = row.to(tl.float32) + 0.5
    best = tl.zeros((tile * tile,), dtype=tl.float32)
    which = tl.full((tile * tile,), -1, dtype=tl.int32)
    begin = tl.load(starts + image).to(tl.int32)
    end = tl.load(starts + image + 1).to(tl.int32)
    for block in range(begin, end, chunk):
        triangle = block + tl.arange(0, chunk)
        there = triangle < end
        x_low = tl.load(bounds + triangle, mask=there, other=1e9)
        x_high = tl.load(bounds + total + triangle, mask=there, other=-1e9)
        y_low = tl.load(bounds + 2 * total + triangle, mask=there, other=1e9)
        y_high = tl.load(bounds + 3 * total + triangle, mask=there, other=-1e9)
        touches = (x_low < left + tile) & (x_high > left) & (y_low < top + tile) & (y_high > top)
        if tl.sum(touches.to(tl.int32), axis=0) > 0:
            for one in range(block, tl.minimum(block + chunk, end)):
                b0 = tl.load(planes + one) * x + tl.load(planes + total + one) * y + tl.load(planes + 2 * total + one)
                b1 = tl.load(planes + 3 * total + one) * x + tl.load(planes + 4 * total + one) * y
                b1 += tl.load(planes + 5 * total + one)
                depth = tl.load(planes + 6 * total + one) * x + tl.load(planes + 7 * total + one) * y
                depth += tl.load(planes + 8 * total + one)
                nearer = (b0 >= 0) & (b1 >= 0) & (b0 + b1 <= 1) & (depth > best)
                best = tl.where(nearer, depth, best)
                which = tl.where(nearer, one, which)
    tl.store(index + image.to(tl.int64) * side * side + row * side + column, which)
