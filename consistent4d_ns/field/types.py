"""Types that planes, heads and their kernels share: the order of the planes, the heads' weights and outputs."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from itertools import combinations
from typing import Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor

AXIS_PAIRS = tuple(combinations(range(4), 2))
"""Axes (x, y, z, t = 0..3) of the six planes: xy, xz, xt, yz, yt, zt."""
TIME_AXIS = 3
SPACE_PAIRS = tuple(axes for axes in AXIS_PAIRS if TIME_AXIS not in axes)
"""Axes of the three planes of a level that does not depend on time: xy, xz, yz."""
PlaneReduction = Literal["product", "hybrid"]
"""`product` multiplies all planes; `hybrid` is (xy + xz + yz) * xt * yt * zt, without the factors of missing planes."""
Planes = Sequence[Float[Tensor, "1 channels rows columns"]]
"""Six planes in the order of `AXIS_PAIRS`, or three in that of `SPACE_PAIRS`: columns run along the first axis of a
pair, rows along the second."""
HeadImplementation = Literal["torch", "tcnn"]
"""Backend of the heads; parameters of one cannot be loaded into the other."""
HeadWeights = tuple[Float[Tensor, "hidden channels"], Float[Tensor, "outputs hidden"]]
"""Weights of a torch head: input to hidden layer, hidden layer to output."""


class HeadValues(NamedTuple):
    """Outputs of a level's heads at some points."""

    density: Float[Tensor, " points"]
    """What the level adds to the raw density."""
    colour: Float[Tensor, "points 3"] | None
    """What it adds to the raw colour."""
    gradient: Float[Tensor, "points 3"] | None
    """Derivatives along x, y, z of what it adds to the raw density."""


def axes_of(planes: Sized) -> tuple[tuple[int, int], ...]:
    """The axes of each of a level's planes."""
    return AXIS_PAIRS if len(planes) == len(AXIS_PAIRS) else SPACE_PAIRS


def resolution_of(planes: Planes) -> tuple[int, int, int, int]:
    """Grid size of a level along x, y, z, t; 0 along t if it does not depend on time."""
    sizes = [0, 0, 0, 0]
    for plane, (column, row) in zip(planes, axes_of(planes), strict=True):
        sizes[row], sizes[column] = plane.shape[2:]
    return sizes[0], sizes[1], sizes[2], sizes[3]
