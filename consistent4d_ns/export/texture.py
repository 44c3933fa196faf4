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


def bake(
    surface: Surface, atlas: Atlas, size: int, colours_at: ColourFunction, device: torch.device | str
) -> UInt8[np.ndarray, "size size 3"]:
    """The texture: texels covered by a triangle get the field's colour, others that of the nearest such texel."""
    uvs = torch.from_numpy(atlas.uvs[atlas.faces]).to(device) * size
    fragments = cover(uvs, size, size)
    corners = torch.from_numpy(atlas.vertex[atlas.faces]).to(device)[fragments.triangle]

    def at(values: Float32[np.ndarray, "vertices 3"]) -> Float[Tensor, "fragments 3"]:
        return (torch.from_numpy(values).to(device)[corners] * fragments.weights[..., None]).sum(dim=1)

    normals = torch.nn.functional.normalize(at(surface.normals), dim=-1)
    colours = colours_at(at(surface.vertices), normals)
    picture = np.zeros((size * size, 3), np.uint8)
    empty = np.ones(size * size, bool)
    pixel = fragments.pixel.cpu().numpy()
    picture[pixel] = (colours * 255.0).round().byte().cpu().numpy()
    empty[pixel] = False
    return spread(picture.reshape(size, size, 3), empty.reshape(size, size))


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
