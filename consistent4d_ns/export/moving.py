"""A mesh that moves: one topology, one set of colours, and positions of the vertices at every frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32, Int64, UInt8

from consistent4d_ns.export.sequence import Mesh
from consistent4d_ns.export.surface import Surface, with_normals
from consistent4d_ns.export.texture import Atlas


@dataclass(frozen=True)
class MovingMesh:
    """A coloured triangle mesh in world units, z up, whose vertices move; has `colours` or both `atlas` and `texture`.

    A texture needs copies of the vertices along its seams. They come after all others, so that a vertex has the same
    number with and without a texture.
    """

    positions: Float32[np.ndarray, "frames vertices 3"]
    """Positions of the vertices without copies in world units; at least one frame."""
    faces: Int32[np.ndarray, "faces 3"]
    """Vertices of each triangle, counter-clockwise seen from outside."""
    colours: Float32[np.ndarray, "vertices 3"] | None = None
    """Colour of each vertex in [0, 1], as displayed (sRGB)."""
    atlas: Atlas | None = None
    """Which vertices are copied, and where all of them lie in the texture."""
    texture: UInt8[np.ndarray, "size size 3"] | None = None
    """Texture, as displayed (sRGB)."""

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def vertex(self) -> Int64[np.ndarray, " cut_vertices"]:
        """The row of `positions` of each vertex that is written."""
        return np.arange(self.positions.shape[1]) if self.atlas is None else self.atlas.vertex

    @property
    def written_faces(self) -> Int32[np.ndarray, "faces 3"]:
        """Triangles of the vertices that are written, in the order of `faces`."""
        return self.faces if self.atlas is None else self.atlas.faces

    def frame(self, index: int) -> Mesh:
        """The mesh as it is at a frame."""
        return self._placed(self.positions[index])

    def between(self, index: int) -> Mesh:
        """The mesh as players show it halfway from a frame to the next."""
        return self._placed(0.5 * (self.positions[index] + self.positions[index + 1]))

    def _placed(self, positions: Float32[np.ndarray, "vertices 3"]) -> Mesh:
        whole = with_normals(positions, self.faces)
        vertex = self.vertex
        surface = Surface(whole.vertices[vertex], self.written_faces, whole.normals[vertex])
        uvs = None if self.atlas is None else self.atlas.uvs
        return Mesh(surface, self.colours, uvs, self.texture)

    def frames(self) -> Iterator[Mesh]:
        """The mesh of every frame; all have the same triangles and the same texture."""
        return (self.frame(index) for index in range(len(self)))


def originals_first(atlas: Atlas, count: int) -> Atlas:
    """The same atlas with one copy of each of the `count` vertices first, in their order, and the other copies after.

    Vertices without any triangle, which an atlas leaves out, get the first corner of the texture.
    """
    first = np.full(count, -1, np.int64)
    first[atlas.vertex[::-1]] = np.arange(len(atlas.vertex))[::-1]
    others = np.setdiff1d(np.arange(len(atlas.vertex)), first)
    place = np.empty(len(atlas.vertex), np.int32)
    place[first[first >= 0]] = np.flatnonzero(first >= 0)
    place[others] = count + np.arange(len(others))
    uvs = np.zeros((count + len(others), 2), np.float32)
    uvs[place] = atlas.uvs
    return Atlas(np.concatenate((np.arange(count), atlas.vertex[others])), place[atlas.faces], uvs)
