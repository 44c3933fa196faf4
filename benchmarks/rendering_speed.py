"""Time and memory of sampling and compositing alone, with and without Triton kernels.

    python -m benchmarks.rendering_speed

Renders views of a ball of radius 0.6 with random densities, with as many rays as a training step of the `consistent4d`
preset. Without a CUDA device only the torch functions are measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from unittest import mock

import torch
import tyro
from torch import Tensor

from benchmarks.steps import machine, milliseconds, peak_memory, reset_peak_memory
from consistent4d_ns.data.cameras import orbit_views
from consistent4d_ns.data.rays import view_rays
from consistent4d_ns.device import kernels
from consistent4d_ns.rendering.compositing import composite
from consistent4d_ns.rendering.sampling import OccupancyGrid, PackedSamples, step_size

LEVELS = 2


@dataclass
class Options:
    """Options of the benchmark."""

    sizes: tuple[tuple[int, int], ...] = ((64, 4), (256, 1), (512, 1))
    """Image side and number of views."""
    repeats: int = 30
    """Number of measurements of each part."""


@dataclass
class Scene:
    """Rays and the occupancy grid that they traverse."""

    grid: OccupancyGrid
    origins: Tensor
    directions: Tensor
    jitter: Tensor

    def sample(self) -> PackedSamples:
        """Samples of all rays."""
        return self.grid.sample(self.origins, self.directions, self.jitter)


def ball(side: int, views: int, device: str) -> Scene:
    """A ball seen from all around."""
    grid = OccupancyGrid(32, step_size(256)).to(device)
    centres = (torch.cartesian_prod(*[torch.arange(32, device=device)] * 3) + 0.5) / 16 - 1
    grid.occupied = centres.norm(dim=-1) < 0.6
    azimuths = [360.0 * view / views for view in range(views)]
    places = [orbit_views(20.0, azimuth, 3.8, 20.0).to(device) for azimuth in azimuths]
    rays = [view_rays(place, torch.zeros(1, device=device), side) for place in places]
    origins, directions = (torch.cat([getattr(r, name) for r in rays]) for name in ("origins", "directions"))
    return Scene(grid, origins, directions, torch.rand(len(origins), device=device))


def measure(scene: Scene, repeats: int, device: str) -> list[tuple[str, float, float]]:
    """Time and peak memory of each part."""
    samples = scene.sample()
    density = (20 * torch.rand(LEVELS, len(samples), device=device)).requires_grad_()
    features = torch.randn(LEVELS, len(samples), 3, device=device).requires_grad_()

    def render() -> Tensor:
        result = composite(density, features, samples)
        return result.accumulation.square().sum() + result.colour.square().sum()

    parts: dict[str, Callable[[], object]] = {
        "sampling": scene.sample,
        "compositing": render,
        "compositing and its gradient": lambda: torch.autograd.grad(render(), (density, features)),
    }
    figures = []
    for name, work in parts.items():
        reset_peak_memory()
        figures.append((name, milliseconds(work, repeats, device), peak_memory()))
    return figures


def main(options: Options) -> None:
    """Measure and print."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(machine())
    print("| px x views | k samples | part | with | ms | peak GiB |\n|---|---|---|---|---|---|", flush=True)
    for side, views in options.sizes:
        scene = ball(side, views, device)
        samples = len(scene.sample()) / 1e3
        for name in ("torch", "Triton") if device == "cuda" else ("torch",):
            usable = kernels.usable if name == "Triton" else lambda tensor: False
            with mock.patch.object(kernels, "usable", usable):
                for part, ms, peak in measure(scene, options.repeats, device):
                    print(f"| {side} x {views} | {samples:.0f} | {part} | {name} | {ms:.3f} | {peak:.2f} |", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
