"""Random textured objects for training: creatures, people, plants, vehicles, furniture, buildings, abstract things.

Every object follows one of the layouts; layouts place parts, styles paint them. All objects of a layout are designed
at once, and all parts of a level of detail are tessellated at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from training.creatures import biped, bird, crawler, fish, quadruped, soft_body, worm
from training.draws import Draw
from training.kit import Kit, Layout, X, Y, Z
from training.patterns import ROLES, Spots, Styles, draw_styles, join_styles, paint
from training.primitives import (
    GRIDS,
    SLIVER,
    SMALL,
    Parts,
    corner_normals,
    deform,
    grid_triangles,
    join_parts,
    unit_shapes,
    vertex_normals,
)
from training.soup import Soups, centred, cumulated
from training.things import (
    assembly,
    building,
    car,
    flower,
    furniture,
    mushroom,
    natural_thing,
    tower,
    tree,
    vase,
    vessel,
)

LAYOUTS: dict[Layout, float] = {
    biped: 0.3,
    quadruped: 0.16,
    bird: 0.08,
    fish: 0.04,
    crawler: 0.05,
    soft_body: 0.02,
    worm: 0.03,
    car: 0.05,
    vessel: 0.03,
    tree: 0.03,
    flower: 0.03,
    mushroom: 0.02,
    furniture: 0.03,
    building: 0.03,
    tower: 0.02,
    vase: 0.02,
    natural_thing: 0.02,
    assembly: 0.05,
}
"""Every layout with its share of the objects."""


@dataclass(frozen=True)
class Design:
    """Objects before they are triangles."""

    parts: Parts
    styles: Styles
    """One row for each object and role."""
    stand: Float[Tensor, "objects 3 3"]
    """From the objects' frames, which face +x, to the world."""
    flat: Bool[Tensor, " objects"]
    """Whether the faces are shaded and coloured one by one."""


def procedural_objects(count: int, generator: torch.Generator) -> Soups:
    """Random objects on the generator's device, standing with z up, each within 0.5 of the origin.

    Most face any direction in the xy plane, a third face +x within 30 degrees. The same generator state on the same
    device gives the same objects.

    Args:
        count: Number of objects, at least 1.
        generator: Source of all randomness.
    """
    chosen = Draw(count, generator).index(list(LAYOUTS.values()))
    groups = [(chosen == i).nonzero()[:, 0] for i in range(len(LAYOUTS))]
    designs = [
        design(layout, len(group), generator) for layout, group in zip(LAYOUTS, groups, strict=True) if len(group)
    ]
    return tessellated(_joined(designs), torch.cat(groups))


def layout_objects(layout: Layout, count: int, generator: torch.Generator) -> Soups:
    """Random objects of one layout, otherwise like `procedural_objects`."""
    return tessellated(design(layout, count, generator), torch.arange(count, device=generator.device))


def design(layout: Layout, count: int, generator: torch.Generator) -> Design:
    """Random objects of one layout: parts, colours, shading and orientation."""
    draw = Draw(count, generator)
    kit = Kit(draw)
    layout(kit)
    styles = draw_styles(draw, kit.colours)
    flat = draw.chance(0.4)
    coarse = flat & draw.chance(0.5)
    parts = kit.parts()
    parts = replace(parts, level=(parts.level + coarse[parts.owner]).clamp_max(SMALL))
    yaw = torch.where(draw.chance(0.7), draw.uniform(-180, 180), draw.uniform(-30, 30))
    stand = kit.world()
    for axis in (X, Y):
        stand = stand.turned(axis, draw.chance(0.2) * draw.normal(8))
    return Design(parts, styles, stand.turned(Z, yaw).rotation, flat)


def _joined(designs: list[Design]) -> Design:
    """All objects of several designs, in their order."""
    first = 0
    parts: list[Parts] = []
    for one in designs:
        parts.append(replace(one.parts, owner=one.parts.owner + first))
        first += len(one.flat)
    stand, flat = (torch.cat([getattr(one, name) for one in designs]) for name in ("stand", "flat"))
    return Design(join_parts(parts), join_styles([one.styles for one in designs]), stand, flat)


def tessellated(objects: Design, order: Int64[Tensor, " objects"]) -> Soups:
    """Triangles of objects, each object within 0.5 of the origin; object i takes place `order[i]` in the result."""
    pieces = [_triangles(objects, objects.parts[_places(objects.parts.level == i)], i) for i in range(len(GRIDS))]
    positions, normals, colours, area, owners = (torch.cat(values) for values in zip(*pieces, strict=True))
    owners = order[owners]
    kept = owners.argsort(stable=True)
    kept = kept[_places(area[kept] > SLIVER)]
    starts = cumulated(torch.bincount(owners[kept], minlength=len(order)))
    return centred(Soups(positions[kept], normals[kept], colours[kept], starts), 0.5)


def _places(mask: Bool[Tensor, " n"]) -> Int64[Tensor, " m"]:
    """Where a mask is true; as indices, so that it is searched once for all tensors that it selects from."""
    return mask.nonzero()[:, 0]


Piece = tuple[
    Float[Tensor, "triangles 3 3"],
    Float[Tensor, "triangles 3 3"],
    Float[Tensor, "triangles 3 3"],
    Float[Tensor, " triangles"],
    Int64[Tensor, " triangles"],
]
"""Positions, normals, colours, twice the areas and owners of triangles."""


def _triangles(objects: Design, parts: Parts, level: int) -> Piece:
    """Triangles of parts that share a level of detail, in the world."""
    shapes = deform(unit_shapes(parts, level), parts, GRIDS[level][0])
    colours = paint(objects.styles[parts.owner * ROLES + parts.role], _spots(parts, shapes.flatten(1, 2)))
    stand = objects.stand[parts.owner]
    turn, origin = (stand @ parts.rotation).mT, stand @ parts.origin[..., None]
    normals = vertex_normals(shapes).flatten(1, 2) @ turn
    points = shapes.flatten(1, 2) @ turn + origin.mT
    corners = grid_triangles(level, points.device)
    owners = parts.owner.repeat_interleave(len(corners))
    positions, smooth, colours = (
        values.index_select(1, corners.flatten()).view(-1, 3, 3) for values in (points, normals, colours)
    )
    flat = objects.flat[owners]
    normals, area = corner_normals(positions, smooth, flat)
    # A flat face has the colour of its first corner, which the other half of its quad shares.
    return positions, normals, torch.where(flat[:, None, None], colours[:, :1], colours), area, owners


def _spots(parts: Parts, shapes: Float[Tensor, "parts points 3"]) -> Spots:
    """Where vertices lie, for painting; mirror images are painted through the mirror."""
    flip = torch.stack((torch.ones_like(parts.side), parts.side, torch.ones_like(parts.side)), dim=-1)
    offset = shapes @ (parts.rotation.mT * flip[:, None])
    frame = flip[:, :, None] * parts.rotation * flip[:, None]
    return Spots(offset, shapes / parts.size[:, None] * flip[:, None], frame)
