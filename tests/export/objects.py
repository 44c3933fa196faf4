"""An object whose shape and colours are known, in place of a trained field."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from consistent4d_ns.model import Consistent4DModel
from consistent4d_ns.pipeline import Consistent4DPipeline
from consistent4d_ns.runs import Run
from tests.support.tiny import tiny_config, toy_folder

RADIUS = 0.45
STRETCH = 1.4
"""The ball is this many times as long in x at time 1 as at time 0."""
WIDTH = 0.01
"""Distance over which the density rises to its full value."""
DENSITY = 120.0


class BallField(nn.Module):
    """A solid ball that grows longer in x; red grows with y, green with z, blue is everywhere a half."""

    num_levels = 1

    def __init__(self, density: float = DENSITY) -> None:
        super().__init__()
        self.full = density

    def density(self, points: Float[Tensor, "points 3"], times: Float[Tensor, " points"]) -> Float[Tensor, "1 points"]:
        scale = torch.ones_like(points)
        scale[:, 0] = 1.0 + (STRETCH - 1.0) * (times + 1.0) / 2.0
        radius = (points / scale).norm(dim=-1)
        return self.full * torch.sigmoid((RADIUS - radius) / WIDTH)[None]

    def forward(
        self, points: Float[Tensor, "points 3"], times: Float[Tensor, " points"]
    ) -> tuple[Float[Tensor, "1 points"], Float[Tensor, "1 points 3"]]:
        return self.density(points, times), torch.logit(ball_colours(points), eps=1e-6)[None]

    def normals(
        self, points: Float[Tensor, "points 3"], times: Float[Tensor, " points"]
    ) -> Float[Tensor, "1 points 3"]:
        return nn.functional.normalize(points, dim=-1)[None]


def ball_colours(points: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
    """Colours of the ball in [0, 1]."""
    half = torch.full_like(points[:, 0], 0.5)
    return torch.stack((0.5 + 0.8 * points[:, 1], 0.5 + 0.8 * points[:, 2], half), dim=-1).clamp(0.02, 0.98)


def ball_run(folder: Path, field: nn.Module | None = None, device: str = "cpu") -> Run:
    """A run whose trained object is the ball (or another field)."""
    config = tiny_config(toy_folder(folder))
    config.pipeline.model.samples_per_ray = 192
    torch.manual_seed(0)
    pipeline = cast(Consistent4DPipeline, config.pipeline.setup(device=device, test_mode="test"))
    model = cast(Consistent4DModel, pipeline.model)
    model.field = field or BallField()  # pyright: ignore[reportAttributeAccessIssue]
    for step in range(20):
        model.update_occupancy(step)
    pipeline.eval()
    return Run(config, pipeline, 0)
