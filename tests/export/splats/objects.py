"""Gaussians to draw and to write."""

from __future__ import annotations

import torch

from consistent4d_ns.data.cameras import OrbitViews, orbit_views
from consistent4d_ns.export.splats.gaussians import Gaussians

VIEW = orbit_views(20.0, 35.0, 2.0, 49.1)


def some_gaussians(count: int = 60, seed: int = 0) -> Gaussians:
    """Long and flat, faint and opaque ones of all colours around the centre."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return Gaussians(
        means=0.25 * draw(count, 3),
        quaternions=draw(count, 4),
        log_scales=-3.0 + 0.7 * draw(count, 3),
        opacity_logits=1.5 * draw(count),
        colour_logits=draw(count, 3),
    )


def directions(count: int) -> OrbitViews:
    """Views from different sides."""
    place = torch.arange(count, dtype=torch.float32)
    full = torch.ones(count)
    return OrbitViews(30.0 * torch.sin(place), 360.0 * place / count, 2.0 * full, 49.1 * full)
