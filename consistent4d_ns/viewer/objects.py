"""Overlays on the rendering: the input frame and the occupied cells."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import viser
import viser.transforms as vtf
from jaxtyping import Bool, Float, Float16, Int, UInt8
from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO
from torch import Tensor

from consistent4d_ns.data.cameras import OrbitViews
from consistent4d_ns.data.images import straight_colour
from consistent4d_ns.media.pictures import to_bytes
from consistent4d_ns.rendering.sampling import BOX_RADIUS, OccupancyGrid
from consistent4d_ns.viewer.camera import to_scene

IMAGE_PLANE = 0.3
"""Distance of the image plane from the input camera, in units of the camera's distance from the origin."""


class InputFrame:
    """The current input frame on the image plane of the input camera, transparent around the object."""

    def __init__(self, frames: Float16[Tensor, "frames 4 size size"], view: OrbitViews) -> None:
        """Take the premultiplied `frames` and the input `view`, on any device."""
        self._frames = frames
        right, up, backward, centre = view.poses()[0].unbind(dim=-1)
        depth = IMAGE_PLANE * float(view.distance)
        self._side = 2.0 * depth * math.tan(math.radians(float(view.fovy)) / 2.0)
        self._middle = centre - depth * backward
        # Viser's images and cameras look along +z with y down.
        self._wxyz = vtf.SO3.from_matrix(torch.stack((right, -up, -backward), dim=-1).numpy()).wxyz
        corners = [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]
        self._corners = [self._middle + 0.5 * self._side * (x * right + y * up) for x, y in corners]
        self._shown: tuple[int, float] | None = None

    def show(self, scene: viser.SceneApi, frame: int, opacity: float) -> None:
        """Show one frame with an opacity in [0, 1]."""
        if self._shown is None:
            self._draw_outline(scene)
        if self._shown != (frame, opacity):
            self._shown = (frame, opacity)
            picture, side = straight_alpha(self._frames[frame], opacity), self._side * VISER_NERFSTUDIO_SCALE_RATIO
            pose: dict[str, Any] = {"wxyz": self._wxyz, "position": to_scene(self._middle)}
            self._image = scene.add_image("/input_frame/image", picture, side, side, format="png", **pose)

    def hide(self) -> None:
        """Remove it."""
        if self._shown is not None:
            self._image.remove()
            self._outline.remove()
            self._shown = None

    def _draw_outline(self, scene: viser.SceneApi) -> None:
        """A line around the image."""
        # With tension 0, the curve is straight between its points.
        style: dict[str, Any] = {"tension": 0.0, "closed": True, "line_width": 1.5, "color": (120, 120, 120)}
        path = to_scene(torch.stack(self._corners))
        self._outline = scene.add_spline_catmull_rom("/input_frame/outline", path, "catmullrom", **style)


def straight_alpha(frame: Float16[Tensor, "4 size size"], opacity: float) -> UInt8[np.ndarray, "size size 4"]:
    """A premultiplied frame as an RGBA image with straight alpha, multiplied by `opacity`."""
    rgb, alpha = frame[:3].float(), frame[3:].float()
    return to_bytes(torch.cat((straight_colour(rgb, alpha), alpha * opacity)).movedim(0, -1))


class OccupiedCells:
    """The occupied cells of the occupancy grid, as a translucent surface."""

    def __init__(self, grid: OccupancyGrid) -> None:
        self._grid = grid
        self._shown: Bool[Tensor, " cells"] | None = None

    @property
    def share(self) -> float:
        """Fraction of the box that is occupied."""
        return float(self._grid.occupied.float().mean())

    def show(self, scene: viser.SceneApi) -> None:
        """Show the current state of the grid."""
        occupied = self._grid.occupied
        # Each update of the grid creates a new tensor.
        if self._shown is not occupied:
            self.hide()
            self._shown = occupied
            n = self._grid.resolution
            vertices, faces = surface(occupied.view(n, n, n))
            self._mesh = scene.add_mesh_simple(
                "/occupied_cells",
                to_scene(vertices),
                faces.numpy(),
                color=(90, 160, 255),
                opacity=0.2,
                flat_shading=True,
            )

    def hide(self) -> None:
        """Remove them."""
        if self._shown is not None:
            self._mesh.remove()
            self._shown = None


CORNERS = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 0, 1]])
"""Corners of a unit cell's face x = 1, counter-clockwise seen from outside; the other faces follow from it."""


def surface(occupied: Bool[Tensor, "n n n"]) -> tuple[Float[Tensor, "vertices 3"], Int[Tensor, "faces 3"]]:
    """Triangles of the surface of the occupied cells, in world coordinates, counter-clockwise seen from outside."""
    n = occupied.shape[0]
    quads = torch.cat([_sides(occupied.cpu(), axis, up) for axis in range(3) for up in (False, True)])
    vertices = quads.reshape(-1, 3) * (2.0 * BOX_RADIUS / n) - BOX_RADIUS
    faces = 4 * torch.arange(len(quads))[:, None, None] + torch.tensor([[0, 1, 2], [0, 2, 3]])
    return vertices, faces.reshape(-1, 3)


def _sides(occupied: Bool[Tensor, "n n n"], axis: int, up: bool) -> Int[Tensor, "sides 4 3"]:
    """Corners, in units of cells, of the cell faces that separate occupied from unoccupied cells along one axis.

    Args:
        occupied: Whether each cell is occupied.
        axis: The axis perpendicular to the faces.
        up: Whether the faces point along the axis or against it.
    """
    n = occupied.shape[0]
    neighbour = torch.zeros_like(occupied)
    source, target = (1, 0) if up else (0, 1)
    neighbour.narrow(axis, target, n - 1).copy_(occupied.narrow(axis, source, n - 1))
    corners = CORNERS.roll(axis, dims=1)
    if not up:
        corners = corners.clone()
        corners[:, axis] = 0
        corners = corners.flip(0)
    return (occupied & ~neighbour).nonzero()[:, None] + corners
