"""Coloured triangles of many objects in flat tensors: the interface between object sources and the renderer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class Soups:
    """Objects as triangles, one object after another. World axes: z up; colours are display (sRGB) values."""

    positions: Float[Tensor, "triangles 3 3"]
    """Corners in world units."""
    normals: Float[Tensor, "triangles 3 3"]
    """Unit normals at the corners; smooth or flat, depending on the object's shading."""
    colours: Float[Tensor, "triangles 3 3"]
    """RGB in [0, 1] at the corners."""
    starts: Int64[Tensor, " objects+1"]
    """Index of each object's first triangle; the last entry is the number of triangles."""

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def counts(self) -> Int64[Tensor, " objects"]:
        """Triangles of each object."""
        return self.starts.diff()

    def owners(self) -> Int64[Tensor, " triangles"]:
        """Object of each triangle."""
        objects = torch.arange(len(self), device=self.starts.device)
        return torch.repeat_interleave(objects, self.counts, output_size=len(self.positions))

    def to(self, device: torch.device | str) -> Soups:
        """The same objects on another device."""
        return Soups(*(t.to(device) for t in (self.positions, self.normals, self.colours, self.starts)))

    def members(
        self, objects: Int64[Tensor, " chosen"]
    ) -> tuple[Int64[Tensor, " members"], Int64[Tensor, " chosen+1"]]:
        """Triangles of some objects, one object after another, and where each object's begin in that list."""
        return members(self.counts, objects)

    def select(self, objects: Int64[Tensor, " chosen"]) -> Soups:
        """Some of the objects, in the order given; an object may be chosen several times."""
        triangles, starts = self.members(objects)
        return Soups(self.positions[triangles], self.normals[triangles], self.colours[triangles], starts)


def members(
    counts: Int64[Tensor, " groups"], chosen: Int64[Tensor, " chosen"]
) -> tuple[Int64[Tensor, " members"], Int64[Tensor, " chosen+1"]]:
    """Rows of some groups, where the rows of all groups lie one group after another.

    Args:
        counts: Rows of each group.
        chosen: Groups, in any order; a group may be chosen several times.

    Returns:
        The rows, one chosen group after another, and where each group's begin among them; the last entry is their
        number.
    """
    sizes = counts[chosen]
    starts = cumulated(sizes)
    first = torch.repeat_interleave((counts.cumsum(0) - counts)[chosen] - starts[:-1], sizes)
    return first + torch.arange(len(first), device=first.device), starts


def cumulated(counts: Int64[Tensor, " groups"]) -> Int64[Tensor, " groups+1"]:
    """Where each group begins, if groups of these sizes follow one another; the last entry is the sum."""
    return torch.cat((counts.new_zeros(1), counts.cumsum(0)))


def join(soups: Sequence[Soups]) -> Soups:
    """All objects of several collections."""
    starts = cumulated(torch.cat([soup.counts for soup in soups]))
    parts = ([getattr(soup, name) for soup in soups] for name in ("positions", "normals", "colours"))
    positions, normals, colours = (torch.cat(part) for part in parts)
    return Soups(positions, normals, colours, starts)


def centred(soups: Soups, radius: float | Float[Tensor, " objects"] = 0.5) -> Soups:
    """Each object moved so that its bounding box is centred on the origin and scaled so that all of it lies within
    `radius` of the origin (world units)."""
    owners, count = soups.owners(), len(soups)
    low, high = (_per_object(soups.positions, owners, count, reduce) for reduce in ("amin", "amax"))
    moved = soups.positions - (0.5 * (low + high))[owners][:, None]
    reach = _per_object(moved.norm(dim=-1, keepdim=True), owners, count, "amax")[:, 0]
    scale = torch.as_tensor(radius).to(reach) / reach.clamp_min(1e-9)
    return Soups(moved * scale[owners][:, None, None], soups.normals, soups.colours, soups.starts)


def _per_object(
    corners: Float[Tensor, "triangles 3 n"], owners: Int64[Tensor, " triangles"], count: int, reduce: str
) -> Float[Tensor, "objects n"]:
    """Minimum or maximum over all corners of each object."""
    result = corners.new_zeros(count, corners.shape[-1])
    index = owners[:, None].expand(-1, corners.shape[-1])
    return result.scatter_reduce(0, index, getattr(corners, reduce)(1), reduce, include_self=False)
