"""Textures: a mesh is cut and flattened by xatlas, and every texel gets its colour from the field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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

    def at(self, values: Float32[np.ndarray, "vertices width"]) -> Float[Tensor, "texels width"]:
        """Values of the uncut mesh's vertices, interpolated at the texels."""
        return (torch.from_numpy(values).to(self.corners.device)[self.corners] * self.weights[..., None]).sum(dim=1)

    def seen(self, surface: Surface, colours_at: ColourFunction) -> Float[Tensor, "texels 3"]:
        """Colours in [0, 1] of the points of the uncut mesh."""
        return colours_at(self.at(surface.vertices), torch.nn.functional.normalize(self.at(surface.normals), dim=-1))

    def picture(self, colours: Float[Tensor, "texels 3"]) -> UInt8[np.ndarray, "size size 3"]:
        """The texture: texels that no triangle covers get the colour of the nearest that one does."""
        picture, empty = np.zeros((self.size**2, 3), np.uint8), np.ones(self.size**2, bool)
        pixel = self.pixel.cpu().numpy()
        picture[pixel] = (colours * 255.0).round().byte().cpu().numpy()
        empty[pixel] = False
        return spread(picture.reshape(self.size, self.size, 3), empty.reshape(self.size, self.size))


def texels_of(atlas: Atlas, size: int, device: torch.device | str) -> Texels:
    """The texels of a texture of `size` x `size` that an atlas covers."""
    fragments = cover(torch.from_numpy(atlas.uvs[atlas.faces]).to(device) * size, size, size)
    corners = torch.from_numpy(atlas.vertex[atlas.faces]).to(device)[fragments.triangle]
    return Texels(size, fragments.pixel, corners, fragments.weights)


def bake(
    surface: Surface, atlas: Atlas, size: int, colours_at: ColourFunction, device: torch.device | str
) -> UInt8[np.ndarray, "size size 3"]:
    """The texture: texels covered by a triangle get the field's colour, others that of the nearest such texel."""
    texels = texels_of(atlas, size, device)
    return texels.picture(texels.seen(surface, colours_at))


def spread(picture: UInt8[np.ndarray, "rows columns 3"], empty: np.ndarray) -> UInt8[np.ndarray, "rows columns 3"]:
    """The texture with empty texels filled with the nearest colour, so that filtering mixes in nothing else.

    Args:
        picture: Colours.
        empty: [rows, columns] bool, texels without a colour; at least one has one.
    """
    from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(empty, return_distances=False, return_indices=True)
    assert isinstance(nearest, np.ndarray)
    return picture[tuple(nearest)]
