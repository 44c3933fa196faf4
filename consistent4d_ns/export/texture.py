"""Textures: a mesh is cut and flattened by xatlas, and every texel gets its colour from the field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from jaxtyping import Float, Float32, Int32, Int64, UInt8
from torch import Tensor

from consistent4d_ns.export.raster import cover
from consistent4d_ns.export.surface import Surface

PADDING = 2
"""Texels between neighbouring charts."""

ColourFunction = Callable[[Float[Tensor, "points 3"], Float[Tensor, "points 3"]], Float[Tensor, "points 3"]]
"""Colours in [0, 1] at points with unit normals."""


def evaluate(
    colours: ColourFunction,
    points: Float32[np.ndarray, "points 3"],
    normals: Float32[np.ndarray, "points 3"],
    device: torch.device | str,
) -> Float[Tensor, "points 3"]:
    """Colours in [0, 1] at points with normals, on a device."""
    return colours(torch.from_numpy(points).to(device), torch.from_numpy(normals).to(device))


@dataclass(frozen=True)
class Atlas:
    """A mesh cut along seams, and where its charts lie in a square texture."""

    vertex: Int64[np.ndarray, " cut_vertices"]
    """Vertex of the uncut mesh that each vertex is a copy of."""
    faces: Int32[np.ndarray, "faces 3"]
    """Triangles of the cut mesh."""
    uvs: Float32[np.ndarray, "cut_vertices 2"]
    """(column, row) in the texture as fractions of its side: (0, 0) is the top left corner."""


def unwrap(surface: Surface, size: int) -> Atlas:
    """Cut a mesh so that it fits a texture of `size` x `size` texels."""
    import xatlas

    charts, packing = xatlas.ChartOptions(), xatlas.PackOptions()
    # More iterations take several times as long and look the same.
    charts.max_iterations = 1
    packing.resolution, packing.padding, packing.bilinear = size, PADDING, True
    atlas = xatlas.Atlas()
    atlas.add_mesh(surface.vertices, surface.faces.astype(np.uint32), surface.normals)
    atlas.generate(charts, packing)
    vertex, faces, uvs = atlas[0]
    return Atlas(vertex.astype(np.int64), faces.astype(np.int32), uvs.astype(np.float32))


@dataclass(frozen=True)
class Texels:
    """Texels that triangles cover, and the points of a surface that they show."""

    size: int
    """Side of the texture in texels."""
    pixel: Int64[Tensor, " texels"]
    """Flat index of each (row * size + column)."""
    corners: Int64[Tensor, "texels 3"]
    """Vertices of the uncut mesh around it."""
    weights: Float[Tensor, "texels 3"]
    """Barycentric coordinates between them."""
    uvs: Float[Tensor, "triangles 3 2"]
    """Where the corners of every triangle are in the texture, as fractions of its side."""
    nearest: Int64[Tensor, " pixels"]
    """For every pixel of the texture, the covered texel whose colour it has."""

    def mix(
        self, triangle: Int64[Tensor, " samples"], weights: Float[Tensor, "samples 3"]
    ) -> tuple[Int64[Tensor, "samples 4"], Float[Tensor, "samples 4"]]:
        """The four texels between which the texture is looked up at points of triangles, and their weights.

        Args:
            triangle: Index of each point's triangle.
            weights: Barycentric coordinates there.
        """
        place = (self.uvs[triangle] * weights[..., None]).sum(dim=1) * self.size - 0.5
        corner = place.floor()
        ahead = place - corner
        taps, shares = [], []
        for right, down in product((0, 1), repeat=2):
            column, row = (corner + corner.new_tensor((right, down))).clamp(0, self.size - 1).long().unbind(dim=-1)
            taps.append(self.nearest[row * self.size + column])
            across = ahead[:, 0] if right else 1.0 - ahead[:, 0]
            shares.append(across * (ahead[:, 1] if down else 1.0 - ahead[:, 1]))
        return torch.stack(taps, dim=-1), torch.stack(shares, dim=-1)

    def at(self, values: Float32[np.ndarray, "vertices width"]) -> Float[Tensor, "texels width"]:
        """Values of the uncut mesh's vertices, interpolated at the texels."""
        return (torch.from_numpy(values).to(self.corners.device)[self.corners] * self.weights[..., None]).sum(dim=1)

    def seen(self, surface: Surface, colours_at: ColourFunction) -> Float[Tensor, "texels 3"]:
        """Colours in [0, 1] of the points of the uncut mesh."""
        return colours_at(self.at(surface.vertices), torch.nn.functional.normalize(self.at(surface.normals), dim=-1))

    def picture(self, colours: Float[Tensor, "texels 3"]) -> UInt8[np.ndarray, "size size 3"]:
        """The texture: texels that no triangle covers get the colour of the nearest that one does."""
        whole = (colours * 255.0).round().byte()[self.nearest]
        return whole.view(self.size, self.size, 3).cpu().numpy()


def texels_of(atlas: Atlas, size: int, device: torch.device | str) -> Texels:
    """The texels of a texture of `size` x `size` that an atlas covers."""
    uvs = torch.from_numpy(atlas.uvs[atlas.faces]).to(device)
    fragments = cover(uvs * size, size, size)
    corners = torch.from_numpy(atlas.vertex[atlas.faces]).to(device)[fragments.triangle]
    nearest = nearest_texels(fragments.pixel.cpu().numpy(), size)
    return Texels(size, fragments.pixel, corners, fragments.weights, uvs, torch.from_numpy(nearest).to(device))


def nearest_texels(pixel: Int64[np.ndarray, " texels"], size: int) -> Int64[np.ndarray, " pixels"]:
    """For every pixel of a texture, which of the covered ones is nearest, so that filtering mixes in nothing else.

    Args:
        pixel: Flat index (row * size + column) of each covered one; at least one.
        size: Side of the texture in pixels.
    """
    from scipy.ndimage import distance_transform_edt

    texel = np.full(size**2, -1)
    texel[pixel] = np.arange(len(pixel))
    nearest = distance_transform_edt(texel.reshape(size, size) < 0, return_distances=False, return_indices=True)
    assert isinstance(nearest, np.ndarray)
    return texel.reshape(size, size)[tuple(nearest)].ravel()
