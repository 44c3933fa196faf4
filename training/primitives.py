"""The one primitive of the procedural objects: a superellipsoid with a profile, tessellated for many parts at once.

A part starts as the unit shape in [-1, 1]^3 around its z axis: a section (superellipse across z) swept along a profile
(half a superellipse, or a whole one for rings). It is deformed, scaled by half extents, turned and placed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

Number: TypeAlias = float | Float[Tensor, " objects"]
"""One value for all objects or a value for each."""

FINE, MEDIUM, SMALL = range(3)
"""Levels of detail of a part, indices into `GRIDS`."""
GRIDS = ((24, 16), (16, 8), (8, 4))
"""Columns (around) and rows (pole to pole) of each level. Multiples of 8 and 4: corners of boxes hit vertices."""
CREASE = math.cos(math.radians(40))
"""Smooth shading gives way to flat shading where a face leans further than this from the mean of its neighbours."""
SLIVER = 1e-7
"""Triangles with twice their area below this count as degenerate: objects are about 1 in size, rounding makes 1e-8."""


@dataclass(frozen=True)
class Form:
    """How the unit shape looks; each value may differ between objects."""

    section: Number = 2.0
    """Exponent across z: 1 diamond, 2 circle, 4 rounded square, 20 square."""
    profile: Number = 2.0
    """Exponent along z: 1 cone on cone, 2 sphere, 4 capsule, 20 cylinder."""
    taper: Number = 0.0
    """-1 narrows to a point at the top, 1 at the bottom."""
    bend: Number = 0.0
    """Moves both ends along +x by this many half heights."""
    twist: Number = 0.0
    """Radians by which either end is turned about z."""
    noise: Number = 0.0
    """Relative size of smooth random bumps."""
    ridges: Number = 0.0
    """Number of ridges around z, whole."""
    depth: Number = 0.0
    """Relative depth of the ridges."""
    swell: Number = 0.0
    """Relative height of waves of the profile, as in vases."""
    swells: Number = 1.0
    """Number of these waves."""
    ring: Number = 0.0
    """0 for a solid, else a ring: thickness of its tube as a share of half the radius, in (0, 0.5]."""


FORM = {field.name: i for i, field in enumerate(fields(Form))}
"""Columns of `Parts.form`."""


@dataclass(frozen=True)
class Parts:
    """Pieces of objects."""

    owner: Int64[Tensor, " parts"]
    """Object that the piece belongs to."""
    level: Int64[Tensor, " parts"]
    """Level of detail."""
    role: Int64[Tensor, " parts"]
    """Which of the object's styles paints it."""
    side: Float[Tensor, " parts"]
    """-1 for the mirror image of a piece, else 1."""
    size: Float[Tensor, "parts 3"]
    """Half extents along its own axes in world units."""
    rotation: Float[Tensor, "parts 3 3"]
    """From its own axes to the object's."""
    origin: Float[Tensor, "parts 3"]
    """Its centre in the object's frame, world units."""
    form: Float[Tensor, "parts columns"]
    """Values of `Form`, see `FORM`."""
    waves: Float[Tensor, "parts 3 4"]
    """Wave vectors and phases (radians) of the bumps."""

    def __getitem__(self, chosen: Tensor) -> Parts:
        """Some of the parts, by a mask or by indices."""
        return Parts(*(getattr(self, field.name)[chosen] for field in fields(self)))


def join_parts(parts: Sequence[Parts]) -> Parts:
    """All parts of several collections."""
    return Parts(*(torch.cat([getattr(some, field.name) for some in parts]) for field in fields(Parts)))


def unit_shapes(parts: Parts, level: int) -> Float[Tensor, "parts rows+1 columns 3"]:
    """Vertices of the undeformed shapes from bottom to top pole (of rings: once around the tube) and around z."""
    columns, rows = GRIDS[level]
    section, profile, ring = (parts.form[:, FORM[name], None] for name in ("section", "profile", "ring"))
    around = torch.arange(columns, device=ring.device) * (2 * math.pi / columns)
    along = torch.linspace(-math.pi / 2, math.pi / 2, rows + 1, device=ring.device)
    x, y = superellipse(around.expand(len(ring), -1), section)
    r, z = superellipse(along * (1 + (ring > 0)), profile)
    # Pole vertices coincide exactly, so that their triangles vanish.
    r = torch.where(ring > 0, 1 - ring + ring * r, torch.where(r.abs() < 1e-6, 0, r))
    return torch.stack(
        (r[:, :, None] * x[:, None], r[:, :, None] * y[:, None], z[:, :, None].expand(-1, -1, columns)), dim=-1
    )


def superellipse(
    angle: Float[Tensor, "parts points"], exponent: Float[Tensor, "parts 1"]
) -> tuple[Float[Tensor, "parts points"], Float[Tensor, "parts points"]]:
    """Points of |x|^p + |y|^p = 1 in the directions `angle` (radians)."""
    c, s = angle.cos(), angle.sin()
    size = (c.abs() ** exponent + s.abs() ** exponent) ** (-1 / exponent)
    return c * size, s * size


def deform(
    points: Float[Tensor, "parts rows columns 3"], parts: Parts, columns: int
) -> Float[Tensor, "parts rows columns 3"]:
    """Unit shapes with taper, waves, ridges, bumps, twist and bend, scaled to their half extents."""
    form = {name: parts.form[:, i, None, None] for name, i in FORM.items()}
    z = points[..., 2]
    around = torch.arange(columns, device=z.device) * (2 * math.pi / columns)
    wide = (1 + form["taper"] * z) / (1 + form["taper"].abs())
    wide = wide * (1 + form["swell"] * torch.sin(math.pi * form["swells"] * (z + 1)))
    wide = wide * (1 + form["depth"] * torch.cos(form["ridges"] * around))
    points = torch.cat((points[..., :2] * wide[..., None], points[..., 2:]), dim=-1)
    points = points * (1 + form["noise"] * waves(points, parts.waves))[..., None]
    c, s = torch.cos(form["twist"] * z), torch.sin(form["twist"] * z)
    x, y, z = points.unbind(-1)
    points = torch.stack((c * x - s * y, s * x + c * y, z), dim=-1) * parts.size[:, None, None]
    points[..., 0] += form["bend"] * parts.size[:, None, None, 2] * z.square()
    return points


def waves(points: Float[Tensor, "parts rows columns 3"], table: Float[Tensor, "parts n 4"]) -> Tensor:
    """Mean of sine waves at points, in [-1, 1]; each row of `table` is a wave vector and a phase (radians)."""
    phase = torch.einsum("pijk,pnk->pijn", points, table[..., :3]) + table[:, None, None, :, 3]
    return phase.sin().mean(-1)


def vertex_normals(points: Float[Tensor, "parts rows+1 columns 3"]) -> Float[Tensor, "parts rows+1 columns 3"]:
    """Area-weighted mean normals of the faces around each vertex of a grid that closes around."""
    right = points.roll(-1, dims=2)
    quads = torch.linalg.cross(right[:, 1:] - points[:, :-1], points[:, 1:] - right[:, :-1], dim=-1)
    quads = quads + quads.roll(1, dims=2)
    return F.normalize(F.pad(quads, (0, 0, 0, 0, 1, 0)) + F.pad(quads, (0, 0, 0, 0, 0, 1)), dim=-1, eps=1e-20)


def grid_triangles(level: int, device: torch.device) -> Int64[Tensor, "triangles 3"]:
    """Corners of a grid's triangles as indices into its flattened vertices, counter-clockwise from outside."""
    columns, rows = GRIDS[level]
    index = torch.arange((rows + 1) * columns, device=device).view(rows + 1, columns)
    a, b = index, index.roll(-1, dims=1)
    lower = torch.stack((a[:-1], b[:-1], b[1:]), dim=-1)
    upper = torch.stack((a[:-1], b[1:], a[1:]), dim=-1)
    return torch.stack((lower, upper), dim=2).reshape(-1, 3)


def corner_normals(
    positions: Float[Tensor, "triangles 3 3"],
    smooth: Float[Tensor, "triangles 3 3"],
    flat: Bool[Tensor, " triangles"],
) -> tuple[Float[Tensor, "triangles 3 3"], Float[Tensor, " triangles"]]:
    """Unit normals for shading and twice the area of triangles.

    Args:
        positions: Corners.
        smooth: Unit normals of the vertices.
        flat: Where the face's own normal is wanted at all corners, rather than at sharp edges only.
    """
    a, b, c = positions.unbind(1)
    cross = torch.linalg.cross(b - a, c - a, dim=-1)
    area = cross.norm(dim=-1)
    face = (cross / area.clamp_min(1e-20)[:, None])[:, None]
    sharp = ((face * smooth).sum(-1) < CREASE) | flat[:, None]
    return torch.where(sharp[..., None], face, smooth), area
