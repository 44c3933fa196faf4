"""The C kernel that marches along rays finds exactly torch's samples."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from consistent4d_ns.device import c_kernels
from consistent4d_ns.rendering import sampling_cpu
from consistent4d_ns.rendering.sampling import OccupancyGrid

RAYS = 5000


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_rays() -> tuple[Tensor, Tensor]:
    """In, around and past the box, some of them along axes, without a direction, or of no numbers."""
    origins = torch.randn(RAYS, 3, generator=seeded(3)) * 1.5
    directions = F.normalize(torch.randn(RAYS, 3, generator=seeded(4)), dim=-1)
    directions[:3] = torch.tensor([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    origins[:3] = torch.tensor([[0.3, 0.2, 3.0], [-3.0, 1.5, 0.0], [0.0, 0.0, 0.0]])
    origins[3:5], directions[3:5] = torch.tensor([[0.1, 0.2, 0.3], [3.0, 0.0, 0.0]]), 0.0
    origins[5:7], directions[7:9] = torch.nan, torch.nan
    origins[9, 1], directions[10, 1] = torch.nan, torch.nan
    return origins, directions


@pytest.mark.skipif(c_kernels.compiler() is None, reason="needs a C compiler")
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize("rays", [0, 1, RAYS])
def test_the_same_samples(share: float, limited: bool, rays: int) -> None:
    grid = OccupancyGrid(8, 0.04)
    grid.occupied = torch.rand(8**3, generator=seeded(8)) < share
    origins, directions = (tensor[:rays] for tensor in some_rays())
    jitter = None if limited else torch.rand(rays, generator=seeded(5))
    nears = torch.rand(rays, generator=seeded(6)) if limited else None
    fars = None if nears is None else nears + 1.0 + torch.rand(rays, generator=seeded(7))
    with mock.patch.object(sampling_cpu, "grid_samples", wraps=sampling_cpu.grid_samples) as kernel:
        found = grid.sample(origins, directions, jitter, nears, fars)
    kernel.assert_called_once()
    with mock.patch.object(c_kernels, "compiler", return_value=None):
        expected = grid.sample(origins, directions, jitter, nears, fars)
    for name in ("ray_indices", "starts", "points", "offsets"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    assert limited or not found.offsets[3:12].diff().any()
