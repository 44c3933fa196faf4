"""Where the vertices of a mesh went by the next moment, as seen from around the object.

Nearest points of surfaces do not tell: a mesh may slide along a round surface, and a limb that moves by more than its
thickness is lost. Optical flow from a picture of the coloured mesh to the volume render of the next moment puts each
visible vertex on a line of sight there. The colours are those of the template, so that errors do not add up over time.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor

from consistent4d_ns.data.cameras import OrbitViews
from consistent4d_ns.data.rays import focal_length
from consistent4d_ns.export.refining import SIZE, views_around
from consistent4d_ns.export.shot import Shot, project, shoot
from consistent4d_ns.export.surface import Surface, with_normals
from consistent4d_ns.media.pictures import render_colour
from consistent4d_ns.model import Consistent4DModel

SAMPLES = 2
"""Samples along each side of a pixel of the mesh's pictures."""
BEHIND = 0.03
"""Distance in world units up to which a vertex behind the visible surface counts as visible."""
RETURN = 0.5
"""Distance in pixels by which flow there and back may miss the start until it counts a quarter."""


@dataclass(frozen=True)
class Sightlines:
    """Lines on which vertices should be."""

    vertex: Int64[Tensor, " lines"]
    """The vertex of each."""
    camera: Float[Tensor, "lines 3"]
    """Where it begins, in world units."""
    direction: Float[Tensor, "lines 3"]
    """Unit vectors."""
    weight: Float[Tensor, " lines"]
    """In [0, 1]; little where a surface is seen at a grazing angle and where the flow is not sure."""

    def distances(self, vertices: Float[Tensor, "vertices 3"]) -> Float[Tensor, " lines"]:
        """Squares of the distances of the vertices from their lines, in square world units."""
        apart = vertices[self.vertex] - self.camera
        along = (apart * self.direction).sum(dim=-1, keepdim=True) * self.direction
        return (apart - along).square().sum(dim=-1)

    def cost(self, vertices: Float[Tensor, "vertices 3"]) -> Float[Tensor, ""]:
        """Weighted sum of these over the lines of a vertex, as a mean over all vertices."""
        return (self.weight * self.distances(vertices)).sum() / len(vertices)

    @torch.no_grad()
    def trusted(self, vertices: Float[Tensor, "vertices 3"], width: float) -> Sightlines:
        """The same with less weight for lines that are far from where the vertices are; a quarter at `width`."""
        closeness = width**2 / (width**2 + self.distances(vertices))
        return replace(self, weight=self.weight * closeness.square())


def no_lines(device: torch.device | str) -> Sightlines:
    """Lines of no vertex."""
    none = torch.zeros(0, device=device)
    return Sightlines(none.long(), none.view(0, 3), none.view(0, 3), none)


class Flow:
    """Optical flow there and back by dense inverse search (Kroeger et al., ECCV 2016)."""

    def __init__(self) -> None:
        import cv2

        opencv: Any = cv2  # Its type stubs lack what is used here.
        self._search = opencv.DISOpticalFlow_create(opencv.DISOPTICAL_FLOW_PRESET_MEDIUM)
        # Pictures are small: flow is found up to their full resolution.
        self._search.setFinestScale(0)

    def __call__(
        self, before: UInt8[np.ndarray, "size size"], after: UInt8[np.ndarray, "size size"]
    ) -> tuple[Float32[np.ndarray, "size size 2"], Float32[np.ndarray, "size size"]]:
        """Where pixels went, as (columns, rows), and in [0, 1] how sure that is."""
        import cv2

        there, back = self._search.calc(before, after, None), self._search.calc(after, before, None)
        rows, columns = np.mgrid[: before.shape[0], : before.shape[1]].astype(np.float32)
        returned = cv2.remap(
            back, columns + there[..., 0], rows + there[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        missed = np.square(there + returned).sum(axis=-1)
        return there, np.square(RETURN**2 / (RETURN**2 + missed))


@dataclass(frozen=True)
class Follower:
    """Looks from around the object where a mesh went."""

    model: Consistent4DModel
    """The trained field."""
    view: OrbitViews
    """The input view."""
    faces: Int64[Tensor, "faces 3"]
    """The mesh's triangles."""
    colours: Float[Tensor, "vertices 3"]
    """The colours of its vertices in [0, 1]."""
    flow: Flow = field(default_factory=Flow)
    """How pictures are compared."""

    @cached_property
    def views(self) -> list[OrbitViews]:
        """The input view, and views from all sides."""
        return [view.to(self.model.device) for view in (self.view, *views_around(self.view, 0))]

    def lines(self, vertices: Float32[np.ndarray, "vertices 3"], time: float) -> Sightlines:
        """Where a mesh, placed as at a moment nearby, is at a time in [0, 1]."""
        surface = with_normals(vertices, self.faces.cpu().numpy().astype(np.int32))
        found = [self._lines_of(surface, view, time) for view in self.views]
        parts = zip(*((x.vertex, x.camera, x.direction, x.weight) for x in found), strict=True)
        return Sightlines(*(torch.cat(part) for part in parts))

    def _lines_of(self, surface: Surface, view: OrbitViews, time: float) -> Sightlines:
        shot = shoot(surface, view, SIZE, SAMPLES)
        mesh = shot.on_white(shot.at(self.colours[self.faces])).movedim(0, -1)
        flow, sure = self.flow(_bytes(mesh), _bytes(render_colour(self.model, view, time, SIZE)))
        vertices = torch.from_numpy(surface.vertices).to(mesh.device)
        facing = visible(surface, shot, view)
        vertex = facing.nonzero()[:, 0]
        place = project(vertices, view, SIZE)[0][vertex]
        seen = torch.from_numpy(np.concatenate((flow, sure[..., None]), axis=-1)).to(mesh.device).movedim(-1, 0)
        grid = (place / SIZE * 2.0 - 1.0)[None, None]
        found = F.grid_sample(seen[None], grid, align_corners=False, padding_mode="border")[0, :, 0].T
        camera = view.poses()[0, :, 3].expand(len(vertex), 3)
        return Sightlines(vertex, camera, through(place + found[:, :2], view, SIZE), facing[vertex] * found[:, 2])


def visible(surface: Surface, shot: Shot, view: OrbitViews) -> Float[Tensor, " vertices"]:
    """For each vertex the cosine between its normal and the direction to the camera; 0 where it is hidden."""
    device = view.azimuth.device
    vertices, normals = (torch.from_numpy(values).to(device) for values in (surface.vertices, surface.normals))
    side, camera = len(shot.triangle), view.poses()[0, :, 3]
    column, row = project(vertices, view, side)[0].floor().long().clamp(0, side - 1).unbind(dim=-1)
    corners = vertices[torch.from_numpy(surface.faces).long().to(device)]
    triangle, weights = shot.triangle[row, column], shot.weights[row, column]
    front = (corners[triangle.clamp(min=0)] * weights[..., None]).sum(dim=1)
    behind = (vertices - camera).norm(dim=-1) - (front - camera).norm(dim=-1)
    facing = (normals * F.normalize(camera - vertices, dim=-1)).sum(dim=-1).clamp(min=0.0)
    return facing * ((triangle < 0) | (behind < BEHIND))


def through(place: Float[Tensor, "points 2"], view: OrbitViews, size: int) -> Float[Tensor, "points 3"]:
    """Unit directions from a camera through points (column, row) of its picture of `size` x `size` pixels."""
    right, down = ((place - 0.5 * size) / focal_length(view.fovy, size)[0]).unbind(dim=-1)
    return F.normalize(torch.stack((right, -down, -torch.ones_like(right)), dim=-1) @ view.poses()[0, :, :3].T, dim=-1)


def _bytes(picture: Float[Tensor, "size size 3"]) -> UInt8[np.ndarray, "size size"]:
    """A picture with values in [0, 1], in grey."""
    import cv2

    return cv2.cvtColor((picture.clamp(0.0, 1.0) * 255.0).round().byte().cpu().numpy(), cv2.COLOR_RGB2GRAY)
