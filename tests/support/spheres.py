"""Coloured spheres as triangle meshes: objects whose images can be worked out by hand."""

from __future__ import annotations

import torch
from torch import Tensor

from training.scenes import Cameras, Scenes
from training.soup import Soups

Vector = tuple[float, float, float]


def sphere(centre: Vector = (0, 0, 0), radius: float = 0.5, colour: Vector = (1, 1, 1), columns: int = 16) -> Soups:
    """One sphere with smooth normals; twice as many columns around the z axis as rows."""
    around = torch.arange(columns + 1) * (2 * torch.pi / columns)
    down = torch.arange(columns // 2 + 1) * (2 * torch.pi / columns)
    level = down.sin()[:, None]
    points = (level * around.cos(), level * around.sin(), down.cos()[:, None].expand(-1, columns + 1))
    grid = torch.stack(points, dim=-1)
    a, b, c, d = grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]
    normals = torch.stack((torch.stack((a, b, c), 2), torch.stack((a, c, d), 2)), 2).reshape(-1, 3, 3)
    colours = torch.tensor(colour).float().expand_as(normals)
    starts = torch.tensor([0, len(normals)])
    return Soups(torch.tensor(centre).float() + radius * normals, normals, colours, starts)


def as_one_object(soups: Soups) -> Soups:
    """All objects of a collection merged into one."""
    return Soups(soups.positions, soups.normals, soups.colours, soups.starts[[0, -1]])


def plain_scenes(objects: list[int], **changes: Tensor) -> Scenes:
    """Scenes that show objects unchanged under ambient light alone, except for `changes`."""
    count = len(objects)
    values = {
        "objects": torch.tensor(objects),
        "linear": torch.eye(3).expand(count, 3, 3),
        "shift": torch.zeros(count, 3),
        "recolour": torch.eye(3).expand(count, 3, 3),
        "light": torch.tensor((0.0, 0.0, 1.0)).expand(count, 3),
        "ambient": torch.ones(count),
        "softness": torch.zeros(count),
    }
    return Scenes(**(values | changes))


def cameras(views: list[tuple[float, float]], scenes: int = 1, distance: float = 2.0) -> Cameras:
    """The same cameras, (elevation, azimuth) in degrees, for every scene."""
    elevation, azimuth = torch.tensor(views).float().T
    shape = (scenes, len(views))
    return Cameras(elevation.expand(shape), azimuth.expand(shape), torch.full(shape, distance))
