"""How well one object explains some views under each of several guesses of their cameras: coarse volumes, fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from consistent4d_ns.data.cameras import OrbitViews
from consistent4d_ns.data.images import locate_pixels, resized
from consistent4d_ns.data.rays import camera_directions, focal_length
from consistent4d_ns.errors import InputError

WHITE = 0.98
"""From this value of its darkest channel on a pixel is background."""
MARGIN = 2
"""Pixels around the object that are fitted, too."""
START = -2.0
"""Where the logarithm of the density, roughly, starts everywhere: fog through which all of the box is seen."""
DENSITY = 20.0
"""Factor on densities, and in `COLOUR` on colours: with them one learning rate suits both."""
COLOUR = 2.0


@dataclass(frozen=True)
class VolumeFit:
    """How volumes are fitted."""

    image_size: int = 24
    """Side in pixels at which the views are fitted."""
    cells: int = 16
    """Cells along each side of the cube that the object may fill."""
    samples: int = 24
    """Samples along a ray through that cube."""
    rays: int = 1024
    """Random rays of a step."""
    steps: int = 100
    """Steps of Adam."""
    learning_rate: float = 0.1
    """Its learning rate."""


@dataclass(frozen=True)
class Pixels:
    """Pixels of views that show the object or its surroundings."""

    view: Int64[Tensor, " pixels"]
    """Index of the view."""
    directions: Float[Tensor, "pixels 3"]
    """Directions of their rays in the axes of its camera, not normalised: one unit deep."""
    colour: Float[Tensor, "pixels 3"]
    """RGB in [0, 1]."""

    def __len__(self) -> int:
        return len(self.view)

    def __getitem__(self, chosen: Int64[Tensor, " chosen"]) -> Pixels:
        return Pixels(self.view[chosen], self.directions[chosen], self.colour[chosen])


def residuals(
    images: Float[Tensor, "views 3 size size"],
    guesses: Sequence[OrbitViews],
    generator: torch.Generator,
    config: VolumeFit,
) -> Float[Tensor, " guesses"]:
    """Mean squared error that is left when a volume is fitted to all views, for each guess of their cameras.

    All guesses see the same rays, so that chance plays no part in their differences.

    Args:
        images: Views of one object in [0, 1] on white.
        guesses: Cameras of the views, one for each guess; distance and field of view are those of the first view.
        generator: CPU generator of the rays.
        config: How the volumes are fitted.

    Raises:
        InputError: The views show nothing but white.
    """
    fovy, distance = guesses[0].fovy[:1], float(guesses[0].distance[0])
    pixels = object_pixels(resized(images, config.image_size), fovy)
    poses = torch.stack([views.poses() for views in guesses])
    reach = distance * float(pixels.directions[:, :2].abs().max())
    volumes = torch.zeros(len(guesses), 4, *3 * [config.cells])
    volumes[:, 0] = START
    volumes.requires_grad_()
    optimizer = torch.optim.Adam([volumes], lr=config.learning_rate, betas=(0.9, 0.99))
    errors = []
    for _ in range(config.steps):
        chosen = pixels[torch.randint(len(pixels), (config.rays,), generator=generator)]
        depths = sample_depths(distance, reach, config, generator)
        points = points_on_rays(poses[:, chosen.view], chosen.directions, depths)
        error = (composite(volumes, points / reach, depths) - chosen.colour).square().mean(dim=(1, 2))
        optimizer.zero_grad()
        error.sum().backward()
        optimizer.step()
        errors.append(error.detach())
    return torch.stack(errors[-max(1, config.steps // 3) :]).mean(dim=0)


def object_pixels(images: Float[Tensor, "views 3 size size"], fovy: Float[Tensor, "1"]) -> Pixels:
    """The pixels of some views that show the object, and those within `MARGIN` of them.

    Raises:
        InputError: There are none.
    """
    coloured = (images.amin(dim=1, keepdim=True) < WHITE).float()
    near = F.max_pool2d(coloured, 2 * MARGIN + 1, stride=1, padding=MARGIN).flatten().nonzero()[:, 0]
    if len(near) == 0:
        raise InputError("elevation auto: the frames show nothing but white; give the elevation in degrees.")
    size = images.shape[-1]
    view, row, column = locate_pixels(near, size)
    middle = 0.5 - size / 2
    directions = camera_directions(column + middle, row + middle, focal_length(fovy, size))
    return Pixels(view, directions, images[view, :, row, column])


def sample_depths(
    distance: float, reach: float, config: VolumeFit, generator: torch.Generator
) -> Float[Tensor, "rays samples"]:
    """Depths of samples along rays through the cube of half side `reach`: one at random in each of equal parts."""
    parts = torch.arange(config.samples) + torch.rand(config.rays, config.samples, generator=generator)
    return distance - reach + 2 * reach * parts / config.samples


def points_on_rays(
    poses: Float[Tensor, "guesses rays 3 4"],
    directions: Float[Tensor, "rays 3"],
    depths: Float[Tensor, "rays samples"],
) -> Float[Tensor, "guesses rays samples 3"]:
    """World coordinates of points at some depths along rays."""
    rotated = (poses[..., :3] @ directions[..., None])[..., 0]
    return poses[..., None, :, 3] + depths[..., None] * rotated[..., None, :]


def composite(
    volumes: Float[Tensor, "guesses 4 n n n"],
    points: Float[Tensor, "guesses rays samples 3"],
    depths: Float[Tensor, "rays samples"],
) -> Float[Tensor, "guesses rays 3"]:
    """Colours of rays through volumes on white.

    Args:
        volumes: Densities and colours before their activations, on the cube [-1, 1]^3; nothing is outside.
        points: Samples along the rays.
        depths: Their depths.
    """
    values = F.grid_sample(volumes, points[:, None].flip(-1), align_corners=False)[:, :, 0]
    inside = (points.abs() < 1).all(dim=-1)
    lengths = F.pad(depths.diff(dim=-1), (0, 1), mode="replicate")
    optical = DENSITY * F.softplus(values[:, 0]) * inside * lengths
    weights = torch.exp(-(optical.cumsum(dim=-1) - optical)) * -torch.expm1(-optical)
    colours = torch.sigmoid(COLOUR * values[:, 1:]).movedim(1, -1)
    return 1 - (weights[..., None] * (1 - colours)).sum(dim=-2)
