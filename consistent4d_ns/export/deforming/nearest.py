"""Which of many points is nearest: by a search tree on a CPU; on a GPU by comparing all pairs, which is quicker."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

PAIRS = 1 << 26
"""Pairs that are compared at once: 256 MiB of distances."""


class Nearest:
    """Points that are searched."""

    def __init__(self, points: Float[Tensor, "points width"]) -> None:
        """
        Args:
            points: At least one; the search takes place on their device.
        """
        from scipy.spatial import KDTree

        self._points = points
        self._tree = None if points.is_cuda else KDTree(points.numpy())

    @torch.no_grad()
    def __call__(self, queries: Float[Tensor, "queries width"]) -> Int64[Tensor, " queries"]:
        """The number of the nearest point of each query."""
        if self._tree is None:
            return nearest_of_all(queries, self._points)
        found = self._tree.query(queries.numpy(), workers=torch.get_num_threads())[1]
        return torch.from_numpy(np.asarray(found))


def nearest_of_all(
    queries: Float[Tensor, "queries width"], points: Float[Tensor, "points width"]
) -> Int64[Tensor, " queries"]:
    """The number of the nearest point of each query, found by comparing all pairs.

    A point that is no more than rounding errors farther away may be taken instead.
    """
    squares = points.square().sum(dim=1)
    parts = queries.split(max(1, PAIRS // len(points)))
    return torch.cat([torch.addmm(squares, part, points.T, alpha=-2.0).argmin(dim=1) for part in parts])
