"""What can be shown beside the rendering: the input frame, the occupied cells."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import viser
import viser.transforms as vtf
from jaxtyping import Bool, Float, Float16, Int, UInt8
from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO
from torch import Tensor

from consistent4d_ns.cameras import OrbitViews
from consistent4d_ns.sampling import BOX_RADIUS, OccupancyGrid
from consistent4d_ns.viewer.camera import to_scene

IMAGE_PLANE = 0.3
"""Distance of the image plane from the input camera, in units of the camera's distance from the origin."""


class InputFrame:
    """The frame of the current moment on the image plane of the input camera, transparent where the object is not."""

    def __init__(self, frames: Float16[Tensor, "frames 4 size size"], view: OrbitViews) -> None:
        """Take the premultiplied `frames` and the input `view`, on any device."""
        self._frames = frames
        right, up, backward, self._centre = view.poses()[0].unbind(dim=-1)
        depth = IMAGE_PLANE * float(view.distance)
        self._side = 2.0 * depth * math.tan(math.radians(float(view.fovy)) / 2.0)
        self._middle = self._centre - depth * backward
        # Viser's images and cameras look along +z with y down.
        self._wxyz = vtf.SO3.from_matrix(torch.stack((right, -up, -backward), dim=-1).numpy()).wxyz
        corners = [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]
        self._corners = [self._middle + 0.5 * self._side * (x * right + y * up) for x, y in corners]
        self._shown: tuple[int, float] | None = None

    def show(self, scene: viser.SceneApi, frame: int, opacity: float) -> None:
        """Show one frame, with this opacity in [0, 1]."""
        if self._shown is None:
            self._draw_outline(scene)
        if self._shown != (frame, opacity):
            self._shown = (frame, opacity)
            picture, side = straight_alpha(self._frames[frame], opacity), self._side * VISER_NERFSTUDIO_SCALE_RATIO
            place: dict[str, Any] = {"wxyz": self._wxyz, "position": to_scene(self._middle)}
            self._image = scene.add_image("/input_frame/image", picture, side, side, format="png", **place)

    def hide(self) -> None:
        """Take it away."""
        if self._shown is not None:
            self._image.remove()
            self._outline.remove()
            self._shown = None

    def _draw_outline(self, scene: viser.SceneApi) -> None:
        """Lines from the camera's centre to the image plane and around it."""
        a, b, c, d = self._corners
        path = to_scene(torch.stack((a, b, c, d, a, self._centre, b, c, self._centre, d)))
        # Tension 0 makes the curve straight between its points.
        self._outline = scene.add_spline_catmull_rom(
            "/input_frame/outline", path, "catmullrom", tension=0.0, line_width=1.5, color=(120, 120, 120)
        )


def straight_alpha(frame: Float16[Tensor, "4 size size"], opacity: float) -> UInt8[np.ndarray, "size size 4"]:
    """A premultiplied frame as an ordinary RGBA picture, its alpha times `opacity`."""
    rgb, alpha = frame[:3].float(), frame[3:].float()
    straight = torch.cat((rgb / alpha.clamp(min=1e-3), alpha * opacity))
    return (straight.clamp(0.0, 1.0) * 255.0).round().byte().movedim(0, -1).cpu().numpy()


class OccupiedCells:
    """The occupied cells of the grid that rays are sampled in, as translucent boxes."""

    def __init__(self, grid: OccupancyGrid) -> None:
        self._grid = grid
        self._shown: Bool[Tensor, "cells"] | None = None

    @property
    def share(self) -> float:
        """Occupied share of the box."""
        return float(self._grid.occupied.float().mean())

    def show(self, scene: viser.SceneApi) -> None:
        """Show them as they are now."""
        occupied = self._grid.occupied
        # An update of the grid makes a new tensor.
        if self._shown is not occupied:
            self.hide()
            self._shown = occupied
            n = self._grid.resolution
            vertices, faces = boxes(surface_cells(occupied.view(n, n, n)), n)
            self._mesh = scene.add_mesh_simple(
                "/occupied_cells",
                to_scene(vertices),
                faces.numpy(),
                color=(90, 160, 255),
                opacity=0.2,
                flat_shading=True,
            )

    def hide(self) -> None:
        """Take them away."""
        if self._shown is not None:
            self._mesh.remove()
            self._shown = None


def surface_cells(occupied: Bool[Tensor, "n n n"]) -> Int[Tensor, "cells 3"]:
    """Indices of the occupied cells that touch an empty one or the outside; the others cannot be seen."""
    padded = F.pad(occupied.cpu().float()[None], (1,) * 6)
    inside = -F.max_pool3d(-padded, kernel_size=3, stride=1)[0] > 0
    return (occupied.cpu() & ~inside).nonzero()


CORNERS = torch.tensor([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)])
"""Corners of the unit cube; bit 2 of the index is x, bit 0 is z."""
SIDES = torch.tensor(
    [
        *([0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5]),  # x = 0, x = 1
        *([0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6]),  # y = 0, y = 1
        *([0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]),  # z = 0, z = 1
    ]
)
"""Triangles of the unit cube, counter-clockwise from outside."""


def boxes(cells: Int[Tensor, "cells 3"], resolution: int) -> tuple[Float[Tensor, "vertices 3"], Int[Tensor, "faces 3"]]:
    """Cells of a grid of `resolution` cells a side as boxes in world coordinates."""
    corners = (cells[:, None] + CORNERS).reshape(-1, 3)
    faces = (8 * torch.arange(len(cells))[:, None, None] + SIDES).reshape(-1, 3)
    return corners * (2.0 * BOX_RADIUS / resolution) - BOX_RADIUS, faces
