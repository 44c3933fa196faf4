"""Colours of a mesh corrected so that it looks like the volume render from all around.

An unlit picture of a mesh is linear in its colours. A step of simultaneous iterative reconstruction (SIRT), which
spreads what is wrong at each pixel over the texels or vertices that it shows, brings it closer to the render.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from consistent4d_ns.data.cameras import OrbitViews, full_circle
from consistent4d_ns.export.shot import shoot
from consistent4d_ns.export.surface import Surface
from consistent4d_ns.media.pictures import render_colour
from consistent4d_ns.model import Consistent4DModel

SIZE = 128
"""Side of the pictures in pixels."""
SAMPLES = 2
"""Samples along each side of a pixel."""
AROUND = 5
"""Views around the object at a moment, besides the input view, of a mesh that is seen at many moments."""
AROUND_ONE = 12
"""The same of a mesh that is seen at one moment only; 20 look no better."""
ELEVATIONS = (-20.0, 0.0, 20.0)
"""Their elevations, in turn, in degrees relative to the input view's."""
TURN = 0.618034
"""Share of their spacing in azimuth by which they are turned from one moment to the next: all azimuths come up."""
FACING = 2
"""Power of the cosine between a surface's normal and the direction to the camera, with which pixels are trusted."""
UNSURE = 1e-3
"""Trusted pixels, or parts of one, that a colour needs to change by half of what they ask for."""

Mix = Callable[
    [Int64[Tensor, " samples"], Float[Tensor, "samples 3"]],
    tuple[Int64[Tensor, "samples taps"], Float[Tensor, "samples taps"]],
]
"""Which colours are mixed at points of a mesh, and how much of each; from their triangles and barycentric coordinates
there."""


@dataclass(frozen=True)
class Sight:
    """How a picture of a mesh on white depends on its colours, and what it should show."""

    pixel: Int64[Tensor, " entries"]
    """Pixel of each contribution."""
    colour: Int64[Tensor, " entries"]
    """Index of the colour that contributes."""
    weight: Float[Tensor, " entries"]
    """How much, summing to the share of the pixel that the mesh covers."""
    trust: Float[Tensor, " entries"]
    """In [0, 1]; little where the surface is seen at a grazing angle, as at silhouettes, which differ a little."""
    goal: Float[Tensor, "pixels 3"]
    """The volume render."""

    def errors(self, colours: Float[Tensor, "colours 3"]) -> Float[Tensor, "pixels 3"]:
        """What has to be added to what the mesh shows at each pixel."""
        covered = torch.zeros_like(self.goal[:, :1]).index_add_(0, self.pixel, self.weight[:, None])
        mesh = torch.zeros_like(self.goal).index_add_(0, self.pixel, self.weight[:, None] * colours[self.colour])
        return self.goal - mesh - (1.0 - covered)


def refined(colours: Float[Tensor, "colours 3"], sights: Iterable[Sight]) -> Float[Tensor, "colours 3"]:
    """Colours in [0, 1] with which the mesh looks more like the renders; those that no picture shows stay.

    Further steps would fit the views that are looked at better and others worse.
    """
    change, total = torch.zeros_like(colours), torch.zeros_like(colours[:, :1])
    for sight in sights:
        weight = (sight.weight * sight.trust)[:, None]
        change.index_add_(0, sight.colour, weight * sight.errors(colours)[sight.pixel])
        total.index_add_(0, sight.colour, weight)
    return (colours + change / (total + UNSURE)).clamp(0.0, 1.0)


def sights(
    model: Consistent4DModel, views: Iterable[OrbitViews], time: float, surface: Surface, mix: Mix
) -> Iterator[Sight]:
    """A mesh seen from some views, each of length 1.

    Args:
        model: The trained field.
        views: Where it is seen from.
        time: In [0, 1].
        surface: The mesh then.
        mix: Where its colours are.
    """
    return (sight(model, view, time, surface, mix) for view in views)


def views_around(view: OrbitViews, turn: int, count: int = AROUND) -> list[OrbitViews]:
    """`count` views from all sides, at the input view's distance, for the moment with the number `turn`."""
    shift = 360.0 / count * (TURN * turn % 1.0)
    around = enumerate(full_circle(count))
    return [
        OrbitViews(
            (view.elevation + ELEVATIONS[(index + turn) % len(ELEVATIONS)]).clamp(-90.0, 90.0),
            view.azimuth + azimuth + shift,
            view.distance,
            view.fovy,
        )
        for index, azimuth in around
    ]


def sight(model: Consistent4DModel, view: OrbitViews, time: float, surface: Surface, mix: Mix) -> Sight:
    """A mesh seen from a view (of length 1) at a time in [0, 1]."""
    view = view.to(model.device)
    shot = shoot(surface, view, SIZE, SAMPLES)
    row, column = (shot.triangle >= 0).nonzero().unbind(dim=-1)
    colour, weight = mix(shot.triangle[row, column], shot.weights[row, column])
    pixel = (row // SAMPLES * SIZE + column // SAMPLES)[:, None].expand_as(colour)
    trust = facing(surface, view)[shot.triangle[row, column]].pow(FACING)[:, None].expand_as(colour)
    goal = render_colour(model, view, time, SIZE).view(-1, 3)
    return Sight(pixel.flatten(), colour.flatten(), weight.flatten() / SAMPLES**2, trust.flatten(), goal)


def facing(surface: Surface, view: OrbitViews) -> Float[Tensor, " triangles"]:
    """Cosines of the angles, up to 90 degrees, between the normals of triangles and the directions to a camera."""
    a, b, c = torch.from_numpy(surface.vertices[surface.faces]).to(view.azimuth.device).unbind(dim=1)
    normals = F.normalize(torch.linalg.cross(b - a, c - a), dim=-1)
    to_camera = F.normalize(view.poses()[0, :, 3] - (a + b + c) / 3.0, dim=-1)
    return (normals * to_camera).sum(dim=-1).clamp(min=0.0)


def vertex_mix(surface: Surface, device: torch.device | str) -> Mix:
    """A colour per vertex."""
    faces = torch.from_numpy(surface.faces).long().to(device)
    return lambda triangle, weights: (faces[triangle], weights)
