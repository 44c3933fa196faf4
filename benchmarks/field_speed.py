"""Time of the field's queries and of their gradients, on samples as training meets them.

    python benchmarks/field_speed.py

Samples of one image of 256 pixels (one time) and of four images of 64 pixels (four times), a million at most. For both
medians in milliseconds: densities, features, normals there and at shifted points, and gradients of a sum of all; the
same with normals from finite differences and torch's own lookups; the passes of the plane kernel alone, in several
layouts, and how much these must move. Without CUDA a few samples show that it runs (with `TRITON_INTERPRET=1` the
kernel too).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median
from typing import Any
from unittest import mock

import torch
import tyro
from torch import Tensor

from consistent4d_ns import planes, planes_kernel
from consistent4d_ns.cameras import focal_length, orbit_poses, pixel_rays
from consistent4d_ns.field import CascadeKPlanes, KPlanesLevel
from consistent4d_ns.planes_kernel import Launch
from consistent4d_ns.sampling import lattice_samples, step_size

RESOLUTIONS = ((50, 50, 50, 8), (100, 100, 100, 16))
RADIUS = 0.75
"""Of the ball that is taken as occupied."""


@dataclass
class Options:
    """What is timed."""

    samples: int = 1 << 20
    """Samples at most."""
    channels: int = 16
    """Features per plane."""
    rounds: int = 10
    """Times that each is run, after two that do not count."""
    tf32: bool = False
    """Allow TF32 in the heads."""


@dataclass(frozen=True)
class Scene:
    """Samples of one batch of rays."""

    name: str
    points: Tensor
    times: Tensor
    shifted: Tensor


def ray_samples(name: str, side: int, times: list[float], options: Options, device: str) -> Scene:
    """Samples of one image of `side` pixels for each time, in the order of training."""
    count = len(times)
    azimuth = torch.arange(count) * 40.0
    poses = orbit_poses(torch.full((count,), 10.0), azimuth, torch.full((count,), 2.0))
    focal = focal_length(torch.full((count,), 49.1), side)
    origins, directions = (rays.flatten(0, 2).to(device) for rays in pixel_rays(poses, focal, side, side))
    generator = torch.Generator().manual_seed(0)
    jitter = torch.rand(len(origins), generator=generator).to(device)
    occupied: Callable[[Tensor], Tensor] = lambda points: points.norm(dim=-1) < RADIUS  # noqa: E731
    samples = lattice_samples(origins, directions, step_size(256), jitter, occupied)
    of_rays = torch.tensor(times, device=device).repeat_interleave(side * side)
    some = slice(options.samples)
    points, moments = samples.points[some], of_rays[samples.ray_indices[some]]
    noise = torch.randn(len(points), 3, generator=generator).to(device)
    return Scene(f"{name}, {len(points)} samples", points, moments, points + 0.01 * noise)


def milliseconds(action: Callable[[], Any], rounds: int, device: str) -> float:
    """Median time of an action."""
    for _ in range(2):
        action()
    found = []
    for _ in range(rounds):
        if device == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            action()
            end.record()
            end.synchronize()
            found.append(begin.elapsed_time(end))
        else:
            start = time.perf_counter()
            action()
            found.append(1e3 * (time.perf_counter() - start))
    return median(found)


def new_query(field: CascadeKPlanes, scene: Scene) -> Tensor:
    """What a training step asks for."""
    results = field.with_normals(scene.points, scene.times)
    return sum((part.sum() for part in results), field.normals(scene.shifted, scene.times).sum())


def old_query(field: CascadeKPlanes, scene: Scene) -> Tensor:
    """The same with torch's lookups and differences."""
    results = field(scene.points, scene.times)
    normals = [field.difference_normals(points, scene.times).sum() for points in (scene.points, scene.shifted)]
    return sum((part.sum() for part in results), normals[0] + normals[1])


@contextmanager
def lookups(fused: bool) -> Iterator[None]:
    """With or without the kernel."""
    with mock.patch.object(planes, "runs_fused", return_value=fused):
        yield


def both_passes(field: CascadeKPlanes, scene: Scene, query: Callable[[CascadeKPlanes, Scene], Tensor]) -> None:
    """A query and its gradients."""
    field.zero_grad()
    query(field, scene).backward()


def time_queries(field: CascadeKPlanes, scene: Scene, options: Options, device: str, fused: bool) -> None:
    """The whole field, new and old."""
    for name, query, kernel in (
        ("derivatives, kernel" if fused else "derivatives", new_query, fused),
        ("differences, kernel", old_query, True),
        ("differences, torch", old_query, False),
    ):
        if kernel and not fused:
            continue
        rounds = options.rounds if kernel else min(options.rounds, 3)
        with lookups(kernel):
            forward = milliseconds(lambda query=query: query(field, scene), rounds, device)
            whole = milliseconds(lambda query=query: both_passes(field, scene, query), rounds, device)
        print(f"  {name:24} forward {forward:8.2f}   forward and backward {whole:8.2f}", flush=True)


def time_heads(field: CascadeKPlanes, scene: Scene, options: Options, device: str) -> None:
    """The same query given the looked-up planes: what is left beside the kernel."""
    count, width = len(scene.points), options.channels
    shapes = [(count, width), (count, 3, width)] * len(field.levels)
    looks = [torch.rand(shape, device=device, requires_grad=True) for shape in shapes]

    def heads() -> None:
        field.zero_grad()
        for look in looks:
            look.grad = None
        # One query at the points, one at the shifted points.
        answers = [*zip(looks[::2], looks[1::2])] * 2
        with mock.patch.object(KPlanesLevel, "with_jacobian", side_effect=answers):
            new_query(field, scene).backward()

    print(f"  {'heads alone':24} forward and backward {milliseconds(heads, options.rounds, device):8.2f}")


def time_layouts(field: CascadeKPlanes, scene: Scene, options: Options, device: str) -> None:
    """The kernel alone: one look with derivatives at the finest level, and its gradients."""
    level: Any = field.levels[-1]
    coordinates = torch.cat((scene.points, scene.times[:, None]), dim=-1)
    count, width = len(coordinates), options.channels
    gradients = torch.randn(count, width, device=device), torch.randn(count, 3, width, device=device)

    def forward() -> tuple[Tensor, Tensor]:
        return planes_kernel.fused_features_and_jacobian(list(level.planes), coordinates, level.reduction)

    def both() -> None:
        torch.autograd.grad(forward(), list(level.planes), gradients)

    print("  kernel at the finest level")
    for block, warps in ((16, 2), (32, 4), (64, 4), (64, 8)):
        launch = replace(Launch(), forward_block=block, forward_warps=warps)
        print(f"    forward, {block} samples, {warps} warps: {timed(launch, forward, options, device):.2f}", flush=True)
    for block, warps in ((16, 2), (16, 4), (32, 4), (32, 8), (64, 8)):
        row = []
        for space, moments in ((1, 1), (1, 8), (1, 32), (1, 128), (4, 32), (16, 128)):
            copies = replace(Launch(), space_copies=space, time_copies=moments)
            launch = replace(copies, backward_block=block, backward_warps=warps)
            row.append(f"{space}, {moments}: {timed(launch, both, options, device):.2f}")
        print(f"    both passes, {block} samples, {warps} warps; copies {'   '.join(row)}", flush=True)
    ordered, coordinates = coordinates, coordinates[torch.randperm(count, device=device)]
    print(f"    both passes, samples shuffled: {timed(Launch(), both, options, device):.2f}")
    coordinates = ordered.clone()
    coordinates[:, 3] = torch.rand(count, device=device) * 2 - 1
    print(f"    both passes, every sample at its own time: {timed(Launch(), both, options, device):.2f}")
    corners, streams = count * 24 * width * 4, count * (2 * 4 + 4 * 4 * width) * 4
    print(
        f"    must read corners of {2 * corners / 1e9:.2f} GB in the cache, add to {corners / 1e9:.2f} GB there "
        f"({corners / 16e6:.0f} million additions of 4 floats), move {streams / 1e9:.2f} GB to and from memory"
    )


def timed(launch: Launch, action: Callable[[], Any], options: Options, device: str) -> float:
    """Median time of an action with the kernels in one layout."""
    with mock.patch.object(planes_kernel, "LAUNCH", launch):
        return milliseconds(action, options.rounds, device)


def main(options: Options) -> None:
    """Print the tables."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    fused = device == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"
    if device == "cpu":
        options = replace(options, samples=min(options.samples, 64), rounds=1)
    torch.backends.cuda.matmul.allow_tf32 = options.tf32
    torch.manual_seed(0)
    print(f"{torch.cuda.get_device_name() if device == 'cuda' else 'CPU'}, torch {torch.__version__}, milliseconds")
    field = CascadeKPlanes(RESOLUTIONS, (options.channels,) * 2).to(device)
    for name, side, times in (("one image", 256, [0.3]), ("four images", 64, [-0.7, -0.2, 0.3, 0.9])):
        scene = ray_samples(name, side, times, options, device)
        print(scene.name)
        time_queries(field, scene, options, device, fused)
        time_heads(field, scene, options, device)
        if fused:
            time_layouts(field, scene, options, device)
    if device == "cuda":
        print(f"peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


if __name__ == "__main__":
    main(tyro.cli(Options))
