"""Time of the field's queries and of their gradients, on samples like those of training.

    python -m benchmarks.field_speed

Uses samples of one image of 256 pixels (one time) and of four images of 64 pixels (four times), at most a million.
Reports median milliseconds of

- a query: densities, features, normals, normals at shifted points, and the gradients of their sum;
- the same with normals from finite differences, and with torch's grid sampling and heads;
- the forward and backward passes of the kernels alone, in several launch configurations, with the memory traffic that
  each requires.

Without CUDA, a few samples serve as a smoke test (with `TRITON_INTERPRET=1` also of the kernels).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import torch
import tyro
from torch import Tensor

from benchmarks.steps import machine, milliseconds
from consistent4d_ns.data.cameras import orbit_poses
from consistent4d_ns.data.rays import focal_length, pixel_rays
from consistent4d_ns.field import heads, heads_kernel, planes, planes_kernel
from consistent4d_ns.field.cascade import CascadeKPlanes, KPlanesLevel
from consistent4d_ns.rendering.sampling import lattice_samples, step_size

RESOLUTIONS = ((50, 50, 50, 8), (100, 100, 100, 16))
TORCH_SHARE = 8
"""torch's grid sampling needs so much memory that it is timed on the first 1 / TORCH_SHARE of the samples only."""
RADIUS = 0.75
"""Radius of the ball that counts as occupied."""


@dataclass
class Options:
    """Options of the benchmark."""

    samples: int = 1 << 20
    """Maximum number of samples per query."""
    channels: int = 16
    """Features per plane."""
    rounds: int = 10
    """Number of timed runs of each query, after two warm-up runs."""
    tf32: bool = False
    """Allow TF32 in torch's heads."""
    layouts: bool = True
    """Time the kernels in several launch configurations."""


@dataclass(frozen=True)
class Scene:
    """Samples of one batch of rays."""

    name: str
    points: Tensor
    """[samples, 3]."""
    times: Tensor
    """[samples], in [-1, 1]."""
    shifted: Tensor
    """[samples, 3]: the points with random offsets."""

    def first(self, count: int) -> Scene:
        """Only the first samples."""
        parts = (part[:count] for part in (self.points, self.times, self.shifted))
        return Scene(f"{self.name}, the first {count}", *parts)


def ray_samples(name: str, side: int, times: list[float], options: Options, device: str) -> Scene:
    """Samples of one image of `side` x `side` pixels for each time, in the order of training."""
    count = len(times)
    azimuth = torch.arange(count) * 40.0
    poses = orbit_poses(torch.full((count,), 10.0), azimuth, torch.full((count,), 2.0))
    focal = focal_length(torch.full((count,), 49.1), side)
    origins, directions = (rays.flatten(0, 2).to(device) for rays in pixel_rays(poses, focal, side, side))
    generator = torch.Generator().manual_seed(0)
    jitter = torch.rand(len(origins), generator=generator).to(device)
    occupied: Callable[[Tensor], Tensor] = lambda points: points.norm(dim=-1) < RADIUS  # noqa: E731
    samples = lattice_samples(origins, directions, step_size(256), jitter, occupied)
    ray_times = torch.tensor(times, device=device).repeat_interleave(side * side)
    count = options.samples
    points, sample_times = samples.points[:count], ray_times[samples.ray_indices[:count]]
    noise = torch.randn(len(points), 3, generator=generator).to(device)
    return Scene(f"{name}, {len(points)} samples", points, sample_times, points + 0.01 * noise)


def new_query(field: CascadeKPlanes, scene: Scene) -> Tensor:
    """The query of a training step, with normals from derivatives."""
    results = field.with_normals(scene.points, scene.times)
    return sum((part.sum() for part in results), field.normals(scene.shifted, scene.times).sum())


def old_query(field: CascadeKPlanes, scene: Scene) -> Tensor:
    """The same query with normals from finite differences."""
    results = field(scene.points, scene.times)
    normals = [field.difference_normals(points, scene.times).sum() for points in (scene.points, scene.shifted)]
    return sum((part.sum() for part in results), normals[0] + normals[1])


@contextmanager
def kernels(plane_kernel: bool, head_kernel: bool) -> Iterator[None]:
    """Enable or disable the kernels of the planes and of the heads."""
    with (
        mock.patch.object(planes, "runs_fused", return_value=plane_kernel),
        mock.patch.object(heads, "runs_fused", return_value=head_kernel),
    ):
        yield


def both_passes(field: CascadeKPlanes, scene: Scene, query: Callable[[CascadeKPlanes, Scene], Tensor]) -> None:
    """Forward and backward pass of a query."""
    field.zero_grad()
    query(field, scene).backward()


def time_queries(field: CascadeKPlanes, scene: Scene, options: Options, device: str, fused: bool) -> None:
    """Time queries of the whole field with each implementation."""
    for name, query, plane_kernel, head_kernel in (
        ("derivatives, kernels", new_query, True, True),
        ("derivatives, heads torch", new_query, True, False),
        ("derivatives, torch", new_query, False, False),
        ("differences, kernels", old_query, True, True),
        ("differences, torch", old_query, False, False),
    ):
        if plane_kernel and not fused:
            continue
        rounds = options.rounds if plane_kernel else min(options.rounds, 3)
        part = scene if plane_kernel else scene.first(options.samples // TORCH_SHARE)
        with kernels(plane_kernel, head_kernel):
            forward = milliseconds(lambda query=query, part=part: query(field, part), rounds, device)
            whole = milliseconds(lambda query=query, part=part: both_passes(field, part, query), rounds, device)
        count = len(part.points)
        print(f"  {name:24} {count:8} samples forward {forward:8.2f}   and backward {whole:8.2f}", flush=True)


def time_heads(field: CascadeKPlanes, scene: Scene, options: Options, device: str, fused: bool) -> None:
    """Time the same query with given plane features: everything but the plane kernel."""
    count, width = len(scene.points), options.channels
    shapes = [(count, width), (count, 3, width)] * len(field.levels)
    inputs = [torch.rand(shape, device=device, requires_grad=True) for shape in shapes]

    def query() -> None:
        field.zero_grad()
        for tensor in inputs:
            tensor.grad = None
        # One query at the points, one at the shifted points.
        lookups = [*zip(inputs[::2], inputs[1::2], strict=True)] * 2
        with mock.patch.object(KPlanesLevel, "with_jacobian", side_effect=lookups):
            new_query(field, scene).backward()

    for name, head_kernel in (("kernel", True), ("torch", False)):
        if fused or not head_kernel:
            with kernels(False, head_kernel):
                whole = milliseconds(query, options.rounds, device)
            print(f"  {'heads alone, ' + name:24} forward and backward {whole:8.2f}", flush=True)


def time_plane_layouts(field: CascadeKPlanes, scene: Scene, options: Options, device: str) -> None:
    """Time the plane kernel alone: one lookup with derivatives at the finest level, and its gradients."""
    level: Any = field.levels[-1]
    coordinates = torch.cat((scene.points, scene.times[:, None]), dim=-1)
    count, width = len(coordinates), options.channels
    gradients = torch.randn(count, width, device=device), torch.randn(count, 3, width, device=device)

    def forward() -> tuple[Tensor, Tensor]:
        return planes_kernel.fused_features_and_jacobian(list(level.planes), coordinates, level.reduction)

    def both() -> None:
        torch.autograd.grad(forward(), list(level.planes), gradients)

    print("  plane kernel at the finest level")
    for block, warps in ((16, 2), (32, 4), (64, 4), (64, 8)):
        launch = replace(planes_kernel.LAUNCH, forward_block=block, forward_warps=warps)
        ms = timed(planes_kernel, launch, forward, options, device)
        print(f"    forward, {block} samples, {warps} warps: {ms:.2f}", flush=True)
    for block, warps in ((16, 2), (16, 4), (32, 4), (32, 8), (64, 8)):
        row = []
        for space, time in ((1, 1), (1, 8), (1, 32), (1, 128), (4, 32), (16, 64), (16, 128)):
            copies = replace(planes_kernel.LAUNCH, space_copies=space, time_copies=time)
            launch = replace(copies, backward_block=block, backward_warps=warps)
            row.append(f"{space}, {time}: {timed(planes_kernel, launch, both, options, device):.2f}")
        print(f"    both passes, {block} samples, {warps} warps; copies {'   '.join(row)}", flush=True)
    ordered = coordinates
    coordinates = ordered[torch.randperm(count, device=device)]
    shuffled = timed(planes_kernel, planes_kernel.LAUNCH, both, options, device)
    print(f"    both passes, samples shuffled: {shuffled:.2f}")
    coordinates = ordered.clone()
    coordinates[:, 3] = torch.rand(count, device=device) * 2 - 1
    scattered = timed(planes_kernel, planes_kernel.LAUNCH, both, options, device)
    print(f"    both passes, a different time for every sample: {scattered:.2f}")
    corners, streams = count * 24 * width * 4, count * (2 * 4 + 4 * 4 * width) * 4
    print(
        f"    required traffic: in the cache {2 * corners / 1e9:.2f} GB of reads and {corners / 1e9:.2f} GB of atomic "
        f"adds ({corners / 16e6:.0f} million of 4 floats), in memory {streams / 1e9:.2f} GB"
    )


def time_head_layouts(field: CascadeKPlanes, count: int, options: Options, device: str) -> None:
    """Time the heads of one level alone: all their outputs, and the gradients of all inputs."""
    level: Any = field.levels[-1]
    shapes = (count, options.channels), (count, 3, options.channels)
    inputs = [torch.rand(shape, device=device, requires_grad=True) for shape in shapes]
    density, colour = (heads.head_weights(head) for head in (level.density_head, level.feature_head))
    gradients = [torch.randn(count, *rest, device=device) for rest in ((), (3,), (3,))]

    def forward() -> Any:
        return heads_kernel.fused_head_values(density, colour, inputs[0], inputs[1])

    def both() -> None:
        torch.autograd.grad(forward(), [*inputs, *density, *colour], gradients)

    print(f"heads kernel of one level, {count} samples")
    for precision in ("ieee", "tf32x3"):
        for block, warps in ((32, 2), (64, 2), (64, 4), (128, 8)):
            launch = replace(heads_kernel.LAUNCH, forward_block=block, forward_warps=warps, precision=precision)
            ms = timed(heads_kernel, launch, forward, options, device)
            print(f"    forward, {precision}, {block} samples, {warps} warps: {ms:.2f}", flush=True)
        for block, warps in ((16, 2), (32, 4), (64, 8)):
            row = []
            for programs in (264, 396, 792, 1584):
                layout = replace(heads_kernel.LAUNCH, backward_block=block, backward_warps=warps)
                launch = replace(layout, backward_programs=programs, precision=precision)
                row.append(f"{programs}: {timed(heads_kernel, launch, both, options, device):.2f}")
            print(
                f"    both passes, {precision}, {block} samples, {warps} warps; programs {'   '.join(row)}", flush=True
            )
    read, written = 4 * options.channels * 4, 7 * 4
    moved = [count * size / 1e9 for size in (read + written, 2 * read + written)]
    print(f"    required memory traffic: forward {moved[0]:.2f} GB, backward {moved[1]:.2f} GB")


def timed(module: Any, launch: Any, action: Callable[[], Any], options: Options, device: str) -> float:
    """Median time of an action in ms, with one launch configuration of a module's kernels."""
    with mock.patch.object(module, "LAUNCH", launch):
        return milliseconds(action, options.rounds, device)


def main(options: Options) -> None:
    """Print the tables."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    fused = device == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"
    if device == "cpu":
        options = replace(options, samples=min(options.samples, 64), rounds=1)
    torch.backends.cuda.matmul.allow_tf32 = options.tf32
    torch.manual_seed(0)
    print(f"{machine()}, milliseconds")
    field = CascadeKPlanes(RESOLUTIONS, (options.channels,) * 2).to(device)
    for name, side, times in (("one image", 256, [0.3]), ("four images", 64, [-0.7, -0.2, 0.3, 0.9])):
        scene = ray_samples(name, side, times, options, device)
        print(scene.name)
        time_queries(field, scene, options, device, fused)
        time_heads(field, scene, options, device, fused)
        if fused and options.layouts:
            time_plane_layouts(field, scene, options, device)
    if fused and options.layouts:
        time_head_layouts(field, options.samples, options, device)
    if device == "cuda":
        print(f"peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
