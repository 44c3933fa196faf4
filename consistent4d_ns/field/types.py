"""Types that planes, heads and their kernels share: the order of the planes, the heads' weights and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor

AXIS_PAIRS = tuple(combinations(range(4), 2))
"""Axes (x, y, z, t = 0..3) of the six planes: xy, xz, xt, yz, yt, zt."""
TIME_AXIS = 3
PlaneReduction = Literal["product", "hybrid"]
"""`product` multiplies all six planes; `hybrid` is (xy + xz + yz) * xt * yt * zt."""
Planes = Sequence[Float[Tensor, "1 channels rows columns"]]
"""Six planes in the order of `AXIS_PAIRS`: columns run along the first axis of a pair, rows along the second."""
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
