"""Objects of any source as training scenes: random size, place, colours, light and cameras; and their renders.

The cameras are those of the guidance: on spheres around the origin, looking at it (`consistent4d_ns.data.cameras`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int32, Int64
from torch import Tensor

from consistent4d_ns.data.cameras import orbit_poses
from consistent4d_ns.data.rays import focal_length
from training.draws import Draw
from training.rasterize import NONE, nearest_triangles, screen_triangles
from training.soup import Soups

FOVY = 49.1
"""Vertical field of view of all images in degrees."""
DISTANCE = 2.0
"""Distance of most cameras from the origin in world units."""
INPUT_VIEWS = 4
"""The first views of a scene can be conditioning images; all can be targets."""
SAMPLES_PER_SIDE = 3
"""Samples per pixel and axis."""
TRIANGLES_AT_ONCE = 3_000_000
"""Bounds the memory of a batch (about 150 bytes a triangle); each view of an object counts."""


@dataclass(frozen=True)
class Cameras:
    """Cameras of some scenes, on spheres around the origin."""

    elevation: Float[Tensor, "scenes views"]
    """Degrees above the xy plane: -10 to 40 for the first `INPUT_VIEWS`, -10 to 60 for the others."""
    azimuth: Float[Tensor, "scenes views"]
    """Degrees from +x towards +y."""
    distance: Float[Tensor, "scenes views"]
    """World units from the origin."""

    def __getitem__(self, chosen: slice) -> Cameras:
        """The cameras of some of the scenes."""
        return Cameras(self.elevation[chosen], self.azimuth[chosen], self.distance[chosen])


@dataclass(frozen=True)
class Scenes:
    """Scenes of one object each, with a random transform, recolouring and light."""

    objects: Int64[Tensor, " scenes"]
    """Index of the object."""
    linear: Float[Tensor, "scenes 3 3"]
    """Maps the object's coordinates to the world: size and stretch along its axes."""
    shift: Float[Tensor, "scenes 3"]
    """Position of its centre in world units."""
    recolour: Float[Tensor, "scenes 3 3"]
    """Maps its RGB values; the result is clamped to [0, 1]."""
    light: Float[Tensor, "scenes 3"]
    """Unit direction towards the light, fixed in the world."""
    ambient: Float[Tensor, " scenes"]
    """Brightness of what faces away from the light; what faces it has 1."""
    softness: Float[Tensor, " scenes"]
    """0: brightness falls with the cosine and stays `ambient` behind; 1: it falls evenly all around."""

    def __getitem__(self, chosen: slice) -> Scenes:
        """Some of the scenes."""
        return Scenes(*(getattr(self, entry.name)[chosen] for entry in fields(self)))


def draw_scenes(objects: Int64[Tensor, " scenes"], generator: torch.Generator) -> Scenes:
    """Random scenes of the given objects, which lie within 0.5 of their origin."""
    draw = Draw(len(objects), generator)
    radius = torch.where(draw.chance(0.7), draw.uniform(0.42, 0.62), draw.uniform(0.30, 0.85))
    stretch = torch.exp(draw.uniform(-0.15, 0.15, 3) * draw.chance(0.6, 1))
    elevation, azimuth = draw.uniform(0.2, 1.4), draw.uniform(0.0, 2 * math.pi)
    level = elevation.cos()
    return Scenes(
        objects=objects,
        linear=torch.diag_embed(stretch * (2 * radius)[:, None]),
        shift=draw.uniform(-0.06, 0.06, 3),
        recolour=_draw_recolouring(draw),
        light=torch.stack((level * azimuth.cos(), level * azimuth.sin(), elevation.sin()), dim=-1),
        ambient=draw.uniform(0.35, 0.95),
        softness=draw.uniform(0.0, 1.0),
    )


def _draw_recolouring(draw: Draw) -> Float[Tensor, "objects 3 3"]:
    """Half of them change the brightness only; half also permute channels and change the saturation."""
    exchanged = F.one_hot(draw.uniform(0.0, 1.0, 3).argsort(-1), 3).float()
    saturation = draw.uniform(0.5, 1.3, 1, 1)
    changed = saturation * exchanged + (1 - saturation) / 3
    kept = draw.chance(0.5, 1, 1)
    return draw.uniform(0.75, 1.1, 1, 1) * torch.where(kept, torch.eye(3, device=draw.device), changed)


def draw_cameras(scenes: int, views: int, generator: torch.Generator) -> Cameras:
    """Random cameras: any azimuth; in some scenes the input views are level, in some the distances differ."""
    draw = Draw(scenes, generator)
    inputs = draw.uniform(-10.0, 40.0, INPUT_VIEWS)
    level = draw.uniform(-5.0, 5.0, INPUT_VIEWS)
    inputs = torch.where(draw.chance(0.5, 1), level, inputs)
    elevation = torch.cat((inputs, draw.uniform(-10.0, 60.0, views - INPUT_VIEWS)), dim=1)
    near_and_far = draw.uniform(1.7, 2.4, views)
    distance = torch.where(draw.chance(0.15, 1), near_and_far, DISTANCE)
    return Cameras(elevation, draw.uniform(-180.0, 180.0, views), distance)


def render(
    soups: Soups, scenes: Scenes, cameras: Cameras, size: int
) -> Iterator[Float[Tensor, "some views 4 size size"]]:
    """Images with premultiplied alpha in [0, 1], of a few scenes at a time, in order.

    Args:
        soups: The objects.
        scenes: What to show of them.
        cameras: The views to render.
        size: Width and height in pixels.
    """
    views = cameras.azimuth.shape[1]
    triangles = (soups.counts[scenes.objects] * views).cumsum(0).tolist()
    begin = 0
    while begin < len(triangles):
        done = triangles[begin - 1] if begin else 0
        end = begin + 1
        while end < len(triangles) and triangles[end] - done <= TRIANGLES_AT_ONCE:
            end += 1
        yield _render_batch(soups, scenes[begin:end], cameras[begin:end], size)
        begin = end


def _render_batch(
    soups: Soups, scenes: Scenes, cameras: Cameras, size: int
) -> Float[Tensor, "scenes views 4 size size"]:
    """`render` for scenes few enough to be rendered together."""
    count, views = cameras.azimuth.shape
    fine = size * SAMPLES_PER_SIDE
    poses = orbit_poses(cameras.elevation, cameras.azimuth, cameras.distance).flatten(0, 1)
    owner = torch.arange(count, device=poses.device).repeat_interleave(views)
    members, starts = soups.members(scenes.objects[owner])
    image = torch.repeat_interleave(torch.arange(len(owner), device=poses.device), starts.diff())
    # Corner coordinates: object to world to camera.
    rotation = poses[:, :, :3].transpose(1, 2)
    linear = rotation @ scenes.linear[owner]
    offset = (rotation @ (scenes.shift[owner] - poses[:, :, 3])[..., None])[..., 0]
    corners = torch.einsum("tij,tcj->tci", linear[image], soups.positions[members]) + offset[image][:, None]
    focal = focal_length(poses.new_full((len(poses),), FOVY), fine)
    screen = screen_triangles(corners, focal[image], fine)
    index = nearest_triangles(screen, starts, fine)
    rgba = _shade(soups, scenes, owner, poses, focal, index, members, corners)
    return F.avg_pool2d(rgba, SAMPLES_PER_SIDE).view(count, views, 4, size, size)


def _shade(
    soups: Soups,
    scenes: Scenes,
    owner: Int64[Tensor, " images"],
    poses: Float[Tensor, "images 3 4"],
    focal: Float[Tensor, " images"],
    index: Int32[Tensor, "images side side"],
    members: Int64[Tensor, " members"],
    corners: Float[Tensor, "members 3 3"],
) -> Float[Tensor, "images 4 side side"]:
    """Colours and coverage of all samples; `index` counts the `members`, whose `corners` are in camera coordinates."""
    side = index.shape[-1]
    image, row, column = (index != NONE).nonzero(as_tuple=True)
    triangle = index[image, row, column].long()
    x = (column + 0.5 - 0.5 * side) / focal[image]
    y = (0.5 * side - row - 0.5) / focal[image]
    weights = barycentric(corners[triangle], torch.stack((x, y, -torch.ones_like(x)), dim=-1))
    source, scene = members[triangle], owner[image]
    colour = torch.einsum("sc,sck->sk", weights, soups.colours[source])
    colour = torch.einsum("sij,sj->si", scenes.recolour[scene], colour).clamp(0.0, 1.0)
    normal = torch.einsum("sc,sck->sk", weights, soups.normals[source])
    # Normals transform with the inverse scale of the object.
    normal = F.normalize(normal / torch.diagonal(scenes.linear, dim1=1, dim2=2)[scene], dim=-1)
    to_camera = poses[image, :, 3]
    normal = torch.where((normal * to_camera).sum(-1, keepdim=True) < 0, -normal, normal)
    rgba = colour.new_zeros(len(index), side, side, 4)
    lit = colour * brightness(normal, scenes, scene)[:, None]
    rgba[image, row, column] = torch.cat((lit, torch.ones_like(lit[:, :1])), dim=-1)
    return rgba.movedim(-1, 1)


def barycentric(
    corners: Float[Tensor, "samples 3 3"], directions: Float[Tensor, "samples 3"]
) -> Float[Tensor, "samples 3"]:
    """Barycentric coordinates of the points where rays from the origin meet their triangles' planes."""
    a, b, c = corners.unbind(1)
    volumes = [(directions * torch.linalg.cross(p, q, dim=-1)).sum(-1) for p, q in ((b, c), (c, a), (a, b))]
    weights = torch.stack(volumes, dim=-1)
    return weights / weights.sum(-1, keepdim=True)


def brightness(
    normals: Float[Tensor, "samples 3"], scenes: Scenes, scene: Int64[Tensor, " samples"]
) -> Float[Tensor, " samples"]:
    """Brightness of matt surfaces, from the scenes' `ambient` to 1."""
    cosine = (normals * scenes.light[scene]).sum(-1)
    soft = scenes.softness[scene]
    facing = soft * (0.5 + 0.5 * cosine) + (1 - soft) * cosine.clamp_min(0.0)
    ambient = scenes.ambient[scene]
    return ambient + (1 - ambient) * facing
