"""Which points belong to the object: a density field becomes a solid with an inside and an outside.

A point is inside if the density there exceeds a threshold and every line of sight through it is opaque: a threshold on
the density alone includes fog too thin to be seen, and silhouettes become too large. Both thresholds are calibrated by
comparing silhouettes with those of the volume rendering.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from consistent4d_ns.data.cameras import OrbitViews, full_circle, orbit_poses
from consistent4d_ns.data.rays import view_rays
from consistent4d_ns.errors import InputError
from consistent4d_ns.field.cascade import CascadeKPlanes
from consistent4d_ns.model import Consistent4DModel
from consistent4d_ns.rendering.compositing import accumulate, render_weights
from consistent4d_ns.rendering.sampling import BOX_RADIUS, OccupancyGrid

CHUNK = 1 << 18
"""Points at which the field is evaluated at a time."""
NOTHING = 0.1
"""Fraction of the threshold at or below which a point counts as empty; keeps logarithms finite."""
FAINT = 0.02
"""Density in 1 / world unit below which a point is ignored."""
AZIMUTHS = 9
"""Azimuths of the lines of sight, evenly spaced around the object."""
ELEVATIONS = (-20.0, 0.0, 20.0)
"""Their elevations in degrees relative to the input view's: from where the object is trained and usually seen."""
CALIBRATION_AZIMUTHS = 8
"""Views around the object whose silhouettes are compared."""
CALIBRATION_SIZE = 96
"""Side of these views in pixels."""
DENSITIES = tuple(0.5 * 2.0 ** (i / 3) for i in range(22))
"""Candidate density thresholds, in 1 / world unit: 0.5 to 64."""
OPACITIES = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55)
"""Candidate opacity thresholds."""


@dataclass(frozen=True)
class Lattice:
    """Regularly spaced points of the box [-1, 1]^3: those in occupied cells, and the smallest block that holds them."""

    points: Float[Tensor, "points 3"]
    """Positions in world units."""
    index: Int64[Tensor, " points"]
    """Flat index of each point in the block (x slowest, z fastest)."""
    shape: tuple[int, int, int]
    """Size of the block, which has one layer more on every side than there are points."""
    origin: Float[Tensor, "3"]
    """Position of the block's first corner."""
    spacing: float
    """Distance between neighbouring points in world units."""

    def block(self, values: Float[Tensor, " points"], empty: float) -> Float[Tensor, "x y z"]:
        """The block with `values` at the points and `empty` elsewhere."""
        whole = values.new_full((math.prod(self.shape),), empty)
        whole[self.index] = values
        return whole.view(self.shape)


def occupied_lattice(occupancy: OccupancyGrid, resolution: int) -> Lattice:
    """The lattice with `resolution` cells along each side of the box, restricted to occupied cells as ray samples are.

    Raises:
        InputError: no cell is occupied.
    """
    cells = occupancy.resolution
    axis = torch.linspace(-BOX_RADIUS, BOX_RADIUS, resolution + 1, device=occupancy.occupied.device)
    along_z = F.pad(axis[:, None], (2, 0), value=-BOX_RADIUS)
    cell = occupancy.cell_index(along_z)
    near = occupancy.occupied.view(cells, cells, cells)[cell][:, cell][:, :, cell]
    places = near.nonzero()
    if not len(places):
        raise InputError("the occupancy grid is empty, there is nothing to export: train for longer.")
    low = places.amin(dim=0) - 1
    size = places.amax(dim=0) + 2 - low
    x, y, z = (places - low).unbind(dim=-1)
    spacing = 2.0 * BOX_RADIUS / resolution
    origin = low * spacing - BOX_RADIUS
    shape = (int(size[0]), int(size[1]), int(size[2]))
    return Lattice(axis[places], (x * shape[1] + y) * shape[2] + z, shape, origin, spacing)


@torch.no_grad()
def finest_density(field: CascadeKPlanes, points: Float[Tensor, "points 3"], time: float) -> Float[Tensor, " points"]:
    """Density of the finest level at a time in [0, 1]."""
    times = torch.full_like(points[:, 0], time * 2.0 - 1.0)
    chunks = zip(points.split(CHUNK), times.split(CHUNK), strict=True)
    return torch.cat([field.density(*chunk)[-1] for chunk in chunks])


def lines_of_sight(view: OrbitViews) -> Float[Tensor, "directions 3"]:
    """Unit vectors towards cameras all around the object, at elevations near that of `view`."""
    around = torch.tensor(full_circle(AZIMUTHS)) + view.azimuth[0]
    # Each ring is offset by a part of the spacing, so that more azimuths are covered.
    turn = 360.0 / AZIMUTHS / len(ELEVATIONS)
    rings = [(view.elevation[0] + up, around + i * turn) for i, up in enumerate(ELEVATIONS)]
    elevation = torch.cat([ring.expand(AZIMUTHS) for ring, _ in rings]).clamp(-90.0, 90.0)
    azimuth = torch.cat([azimuths for _, azimuths in rings])
    return orbit_poses(elevation, azimuth, torch.ones_like(azimuth))[..., 2]


def least_optical_depth(
    lattice: Lattice, density: Float[Tensor, " points"], directions: Float[Tensor, "directions 3"]
) -> Float[Tensor, " points"]:
    """Optical depth of the whole line through each point, along the direction where it is least.

    The points are projected along each direction onto a plane with pixels as large as the lattice's spacing. There
    they add up their optical depth, shared bilinearly by four pixels, and read the sum. Points with next to no density
    take no part: they are outside anyway, and get 0.
    """
    least = torch.zeros_like(density)
    dense = density > FAINT
    points, share = lattice.points[dense], density[dense] * lattice.spacing
    side = math.ceil(2.0 * math.sqrt(3.0) * BOX_RADIUS / lattice.spacing) + 3
    found = torch.full_like(share, math.inf)
    for direction in directions:
        place = points @ torch.stack(plane_axes(direction), dim=-1) / lattice.spacing + side / 2
        corner = place.floor()
        ahead = place - corner
        first = corner[:, 0].long() * side + corner[:, 1].long()
        hats = torch.stack((1.0 - ahead, ahead))
        pixels = [first + i * side + j for i, j in product((0, 1), repeat=2)]
        weights = [hats[i, :, 0] * hats[j, :, 1] for i, j in product((0, 1), repeat=2)]
        image = density.new_zeros(side * side)
        for pixel, weight in zip(pixels, weights, strict=True):
            image.index_add_(0, pixel, share * weight)
        through = torch.stack([image[pixel] * weight for pixel, weight in zip(pixels, weights, strict=True)]).sum(dim=0)
        found = torch.minimum(found, through)
    least[dense] = found
    return least


def plane_axes(direction: Float[Tensor, "3"]) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
    """Two unit vectors at right angles to a unit vector and to each other."""
    helper = torch.eye(3, dtype=direction.dtype, device=direction.device)[direction.abs().argmin()]
    first = F.normalize(torch.linalg.cross(direction, helper), dim=0)
    return first, torch.linalg.cross(direction, first)


def optical_depth(opacity: float) -> float:
    """Optical depth of a line that absorbs this share of the light, in [0, 1)."""
    return -math.log1p(-opacity)


@dataclass(frozen=True)
class Threshold:
    """What a point needs to be inside."""

    density: float
    """Density in 1 / world unit."""
    opacity: float
    """Opacity of the most transparent line through it, in [0, 1)."""

    def level(
        self, density: Float[Tensor, "*points"], least_depth: Float[Tensor, "*points"]
    ) -> Float[Tensor, "*points"]:
        """Above 0 inside, below 0 outside; logarithmic, as densities fall off about exponentially."""
        ratio = density / self.density
        if self.opacity > 0:
            ratio = torch.minimum(ratio, least_depth / optical_depth(self.opacity))
        return ratio.clamp(min=NOTHING).log()


@dataclass(frozen=True)
class Solid:
    """The object's inside at any time."""

    model: Consistent4DModel
    """The trained field."""
    lattice: Lattice
    """Points at which it is evaluated."""
    directions: Float[Tensor, "directions 3"]
    """Lines of sight that must be opaque."""
    threshold: Threshold
    """What a point needs to be inside."""

    def level(self, time: float) -> Float[Tensor, "x y z"]:
        """Above 0 inside the object, below 0 outside, on the lattice's block; `time` in [0, 1]."""
        density, depth = measure(self.model, self.lattice, self.directions, time)
        return self.lattice.block(self.threshold.level(density, depth), math.log(NOTHING))


def measure(
    model: Consistent4DModel, lattice: Lattice, directions: Float[Tensor, "directions 3"], time: float
) -> tuple[Float[Tensor, " points"], Float[Tensor, " points"]]:
    """Density and least optical depth at the points of a lattice."""
    density = finest_density(model.field, lattice.points, time)
    return density, least_optical_depth(lattice, density, directions)


@dataclass(frozen=True)
class Silhouettes:
    """Some views at one time: which rays are opaque, and what they meet."""

    opaque: Bool[Tensor, "views pixels"]
    """Rays that are more than half absorbed."""
    ray_indices: Int64[Tensor, " samples"]
    """Ray of each sample."""
    density: Float[Tensor, " samples"]
    """Density on the lattice, at the samples."""
    least_depth: Float[Tensor, " samples"]
    """Least optical depth on the lattice, at the samples."""

    def overlap(self, densities: Float[Tensor, " densities"], opacity: float) -> Float[Tensor, "densities views"]:
        """Intersection over union of the silhouettes of the fog and of what is inside each threshold."""
        solid = self.least_depth > optical_depth(opacity)
        densest = torch.zeros_like(self.opaque, dtype=self.density.dtype).flatten()
        densest.scatter_reduce_(0, self.ray_indices[solid], self.density[solid], reduce="amax")
        hit = densest.view_as(self.opaque) > densities[:, None, None]
        return (hit & self.opaque).sum(dim=2) / (hit | self.opaque).sum(dim=2).clamp(min=1)


@torch.no_grad()
def silhouettes(
    model: Consistent4DModel,
    lattice: Lattice,
    directions: Float[Tensor, "directions 3"],
    views: OrbitViews,
    time: float,
) -> Silhouettes:
    """Render views at a time in [0, 1] and look up the quantities that the threshold applies to."""
    times = torch.full((len(views),), time, device=model.device)
    rays = view_rays(views.to(model.device), times, CALIBRATION_SIZE)
    samples = model.sample(rays, None)
    weights = render_weights(finest_density(model.field, samples.points, time)[None], samples)
    opaque = accumulate(weights, samples)[0] > 0.5
    size = torch.tensor(lattice.shape, device=model.device) - 1
    place = (samples.points - lattice.origin) / lattice.spacing / size * 2.0 - 1.0
    fields = torch.stack([lattice.block(v, 0.0) for v in measure(model, lattice, directions, time)])
    looked_up = F.grid_sample(fields[None], place.flip(-1)[None, None, None], align_corners=True)[0, :, 0, 0]
    return Silhouettes(opaque.view(len(views), -1), samples.ray_indices, *looked_up)


def calibrate(
    model: Consistent4DModel,
    lattice: Lattice,
    view: OrbitViews,
    times: tuple[float, ...],
    density: float | None = None,
    opacity: float | None = None,
) -> Threshold:
    """The threshold whose silhouettes agree best with the volume render's, over views all around.

    Args:
        model: The trained field.
        lattice: Where the inside will be looked for.
        view: The input view; its elevation, distance and field of view are kept.
        times: At which to compare, in [0, 1].
        density: Keep this one instead of looking for it.
        opacity: Likewise.

    Raises:
        InputError: all views are transparent.
    """
    densities = DENSITIES if density is None else (density,)
    opacities = OPACITIES if opacity is None else (opacity,)
    # Half a spacing off the input view, so that not only the best fitted view is looked at.
    azimuths = view.azimuth + torch.tensor(full_circle(CALIBRATION_AZIMUTHS)) + 180.0 / CALIBRATION_AZIMUTHS
    elevation, distance, fovy = (t.expand(len(azimuths)) for t in (view.elevation, view.distance, view.fovy))
    around = OrbitViews(elevation, azimuths, distance, fovy)
    directions = lines_of_sight(view).to(model.device)
    seen = [silhouettes(model, lattice, directions, around, time) for time in times]
    if not any(bool(one.opaque.any()) for one in seen):
        raise InputError("the object is transparent from all sides, there is nothing to export: train for longer.")
    tried = torch.tensor(densities, device=model.device)
    scores = torch.stack(
        [torch.cat([one.overlap(tried, least) for one in seen], dim=1).mean(dim=1) for least in opacities]
    )
    best_opacity, best_density = divmod(int(scores.argmax()), len(densities))
    return Threshold(densities[best_density], opacities[best_opacity])
