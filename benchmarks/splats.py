"""How much exported Gaussians look like the field, and what they cost.

    python -m benchmarks.splats RUN RUN --device cpu
    python -m benchmarks.splats RUN --device cuda --fit-steps 0 300 --rasteriser torch

For each run and number of steps: some frames are made and written as the command does; the files are read back by
trimesh, drawn from an orbit by another rasteriser than the one that Gaussians are fitted with in PyTorch, and compared
with volume renders from the same views. None of the views is among those that are fitted. The rasteriser is gsplat's
where its CUDA kernels are, else gsplat's projection in PyTorch with a plain loop over tiles; the benchmark says which.
"""

from __future__ import annotations

import math
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
import trimesh
import tyro
from jaxtyping import Float
from torch import Tensor

from benchmarks import measures
from consistent4d_ns.data.cameras import OrbitViews, full_circle
from consistent4d_ns.data.rays import focal_length
from consistent4d_ns.errors import show_input_errors_in_one_line
from consistent4d_ns.export.options import TimeOptions
from consistent4d_ns.export.splats.files import SH_0, encode
from consistent4d_ns.export.splats.options import Rasteriser, SplatFormat, SplatOptions
from consistent4d_ns.export.splats.raster import gsplat_fault
from consistent4d_ns.export.splats.sequence import Splatter, splatter
from consistent4d_ns.media.pictures import render_colour
from consistent4d_ns.model import Consistent4DModel
from consistent4d_ns.runs import Run, load_run

TILE = 16
"""Side in pixels of the tiles that the reference in PyTorch draws one by one."""
TILTS = (0.0, 20.0, -20.0, 10.0)
"""Degrees between the elevations of the views and that of the input view, in turn."""
AXES = {"ply": ((0, 1, 0), (0, 0, -1), (-1, 0, 0)), "spz": ((0, 1, 0), (0, 0, 1), (1, 0, 0))}
AXES["compressed.ply"] = AXES["ply"]
"""World axes of each axis of a file, by format: what `docs/export.md` says, independent of the code that writes."""
COLUMNS = (
    "gaussians",
    "sets",
    "mean_psnr",
    "least_psnr",
    "between_psnr",
    "seconds_a_frame",
    "kb_a_frame",
    "memory_mib",
)


Draw = Callable[["Splats", OrbitViews, int], Float[Tensor, "size size 3"]]
"""The image on white of one view."""


@dataclass
class Options:
    """Options of the benchmark."""

    configs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Finished runs: config.yml, or its folder."""
    device: Literal["cuda", "cpu"] | None = None
    """Where to compute; default: CUDA if available."""
    fit_steps: tuple[int, ...] = (0, 300)
    """Steps of fitting, one after the other."""
    frames: int | None = None
    """Frames that are made, evenly spaced; default: as many as the input has."""
    every: int = 8
    """Every so manieth of them is measured, from the first on, and half-way to the next where that has the same set."""
    views: int = 8
    """Views around the object."""
    size: int = 256
    """Side of the compared images in pixels."""
    format: SplatFormat = "ply"
    """Format that is written and read back, so that its losses count."""
    cells: int | None = None
    """As for `consistent4d export splats`."""
    shared: bool = True
    """As for `consistent4d export splats`."""
    rasteriser: Rasteriser | None = None
    """As for `consistent4d export splats`: what draws Gaussians while they are fitted."""


@dataclass(frozen=True)
class Splats:
    """The contents of a file."""

    axes: Float[Tensor, "3 3"]
    """Turns vectors of the world to those of the file."""
    means: Float[Tensor, "n 3"]
    quaternions: Float[Tensor, "n 4"]
    scales: Float[Tensor, "n 3"]
    opacities: Float[Tensor, " n"]
    colours: Float[Tensor, "n 3"]


def read_back(data: bytes, format: SplatFormat, device: torch.device | str = "cpu") -> Splats:
    """What a file of that format holds."""
    if format != "ply":
        from gaussforge import GaussForge

        data = GaussForge().convert(data, format, "ply")["data"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "read.ply"
        path.write_bytes(data)
        return read_ply(path, torch.tensor(AXES[format], dtype=torch.float32, device=device))


def read_ply(path: Path, axes: Float[Tensor, "3 3"]) -> Splats:
    """Read a PLY of Gaussian splatting of degree 0 and these axes, by trimesh."""
    data = trimesh.load(path).metadata["_ply_raw"]["vertex"]["data"]

    def columns(*names: str) -> Tensor:
        return torch.from_numpy(np.stack([np.asarray(data[name]).ravel() for name in names], axis=1)).to(axes)

    return Splats(
        axes=axes,
        means=columns("x", "y", "z"),
        quaternions=columns("rot_0", "rot_1", "rot_2", "rot_3"),
        scales=columns("scale_0", "scale_1", "scale_2").exp(),
        opacities=torch.sigmoid(columns("opacity"))[:, 0],
        colours=(0.5 + SH_0 * columns("f_dc_0", "f_dc_1", "f_dc_2")).clamp(min=0.0),
    )


def camera(splats: Splats, view: OrbitViews, size: int) -> tuple[Float[Tensor, "4 4"], Float[Tensor, "3 3"]]:
    """World-to-camera matrix in a file's axes, and intrinsic matrix, of one orbit view, as gsplat takes them."""
    pose = view.poses()[0].to(splats.axes)
    rotation = splats.axes @ pose[:, :3] @ torch.diag(torch.tensor((1.0, -1.0, -1.0), device=pose.device))
    matrix = torch.eye(4, device=pose.device)
    matrix[:3, :3] = rotation.T
    matrix[:3, 3] = -rotation.T @ splats.axes @ pose[:, 3]
    focal, middle = float(focal_length(view.fovy, size)[0]), size / 2
    return matrix, torch.tensor([[focal, 0.0, middle], [0.0, focal, middle], [0.0, 0.0, 1.0]], device=pose.device)


@torch.no_grad()
def drawn_by_gsplat(splats: Splats, view: OrbitViews, size: int) -> Float[Tensor, "size size 3"]:
    """The image on white by gsplat's CUDA kernels."""
    from gsplat import rasterization

    matrix, lens = camera(splats, view, size)
    white = torch.ones(1, 3, device=splats.means.device)
    values = (splats.means, F.normalize(splats.quaternions, dim=1), splats.scales, splats.opacities, splats.colours)
    return rasterization(*values, matrix[None], lens[None], size, size, backgrounds=white, packed=False)[0][0]


@torch.no_grad()
def drawn_by_tiles(splats: Splats, view: OrbitViews, size: int) -> Float[Tensor, "size size 3"]:
    """The image on white, projected by gsplat's functions in PyTorch and composited tile by tile."""
    from gsplat.cuda._torch_impl import _fully_fused_projection, _quat_scale_to_covar_preci

    matrix, lens = camera(splats, view, size)
    covariances = _quat_scale_to_covar_preci(splats.quaternions, splats.scales, True, False)[0]
    assert covariances is not None
    radii, centres, depths, conics, _ = _fully_fused_projection(
        splats.means, covariances, matrix[None], lens[None], size, size
    )
    order = depths[0].argsort()
    order = order[radii[0, order] > 0]
    flat = torch.cat((centres[0], conics[0], splats.opacities[:, None], splats.colours), dim=1)[order]
    reach = radii[0, order, None].float()
    image = torch.ones(size, size, 3, device=flat.device)
    for top in range(0, size, TILE):
        for left in range(0, size, TILE):
            corner = torch.tensor((left, top), device=flat.device)
            near = ((flat[:, :2] + reach > corner) & (flat[:, :2] - reach < corner + TILE)).all(dim=1)
            image[top : top + TILE, left : left + TILE] = tile(flat[near], left, top, size)
    return image


def tile(flat: Float[Tensor, "n 9"], left: int, top: int, size: int) -> Float[Tensor, "rows columns 3"]:
    """A tile of an image, from centre, inverse covariance, opacity and colour of Gaussians, nearest first."""
    x = torch.arange(left, min(left + TILE, size), device=flat.device) + 0.5
    y = torch.arange(top, min(top + TILE, size), device=flat.device) + 0.5
    dx, dy = x[None, :, None] - flat[:, 0], y[:, None, None] - flat[:, 1]
    power = 0.5 * (flat[:, 2] * dx * dx + flat[:, 4] * dy * dy) + flat[:, 3] * dx * dy
    alpha = (flat[:, 5] * torch.exp(-power)).clamp(max=0.999)
    alpha = torch.where(alpha < 1.0 / 255.0, 0.0, alpha)
    through = torch.cumprod(1.0 - alpha, dim=-1)
    weights = alpha * torch.cat((torch.ones_like(through[..., :1]), through[..., :-1]), dim=-1)
    return weights @ flat[:, 6:] + 1.0 - weights.sum(dim=-1, keepdim=True)


def orbit(view: OrbitViews, count: int) -> OrbitViews:
    """Views around the object at the input view's distance, none of them from straight ahead."""
    azimuth = view.azimuth + torch.tensor(full_circle(count)) + 90.0 / count
    tilt = torch.tensor([TILTS[i % len(TILTS)] for i in range(count)])
    return OrbitViews(view.elevation + tilt, azimuth, view.distance.expand(count), view.fovy.expand(count))


def measure(run: Run, source: Splatter, options: Options) -> list[float]:
    """The figures of `COLUMNS`: means over the frames, and the least PSNR of all views and frames."""
    views = orbit(run.pipeline.datamanager.input_view.to("cpu"), options.views)
    has_kernels = source.model.device.type == "cuda" and gsplat_fault() is None
    draw = drawn_by_gsplat if has_kernels else drawn_by_tiles
    begins, rows, at, between, before = [], [], [], [], None
    frames, begin = source.frames(), time.perf_counter()
    for timed in source.timeline:
        frame = next(frames)
        data = encode(frame.gaussians, options.format)
        rows.append((len(frame.gaussians), time.perf_counter() - begin, len(data) / 1e3))
        splats = read_back(data, options.format, source.model.device)
        if timed.index % options.every == 0:
            at += psnrs(source.model, splats, views, timed.time, options.size, draw)
        if timed.index % options.every == 1 and before is not None and begins[-1] == frame.begin:
            moment = 0.5 * (source.timeline.times[timed.index - 1] + timed.time)
            between += psnrs(source.model, half_way(before, splats), views, moment, options.size, draw)
        begins.append(frame.begin)
        before, begin = splats, time.perf_counter()
    size, seconds, kilobytes = (mean(column) for column in zip(*rows, strict=True))
    quality = (mean(at), min(at), mean(between) if between else math.nan)
    return [size, len(set(begins)), *quality, seconds, kilobytes, peak_memory(source.model)]


def half_way(before: Splats, after: Splats) -> Splats:
    """What is linearly between two moments of the same Gaussians."""
    same_side = (before.quaternions * after.quaternions).sum(dim=1, keepdim=True) >= 0
    quaternions = torch.where(same_side, after.quaternions, -after.quaternions)
    return Splats(
        axes=before.axes,
        means=torch.lerp(before.means, after.means, 0.5),
        quaternions=F.normalize(before.quaternions + quaternions, dim=1),
        scales=(before.scales * after.scales).sqrt(),
        opacities=torch.lerp(before.opacities, after.opacities, 0.5),
        colours=torch.lerp(before.colours, after.colours, 0.5),
    )


def psnrs(
    model: Consistent4DModel, splats: Splats, views: OrbitViews, time: float, size: int, draw: Draw
) -> list[float]:
    """PSNR of Gaussians against the volume render in each view."""
    return [psnr(model, splats, views[i : i + 1], time, size, draw) for i in range(len(views))]


def psnr(model: Consistent4DModel, splats: Splats, view: OrbitViews, time: float, size: int, draw: Draw) -> float:
    """PSNR of Gaussians against the volume render in one view."""
    truth, image = render_colour(model, view, time, size), draw(splats, view, size)
    pair = (picture.cpu().movedim(-1, 0)[None].clamp(0.0, 1.0) for picture in (image, truth))
    return float(measures.psnr(*pair))


def peak_memory(model: Consistent4DModel) -> float:
    """Most memory so far in MiB: of the GPU, or of the process."""
    if model.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main(options: Options) -> None:
    """Measure all runs and print a Markdown table."""
    fault = gsplat_fault() if options.device != "cpu" else "--device cpu"
    reference = "gsplat's CUDA kernels" if fault is None else f"gsplat's projection in PyTorch and tiles ({fault})"
    print(f"reference rasteriser: {reference}", flush=True)
    rows = ["| run | steps | " + " | ".join(COLUMNS) + " |", "|---" * (2 + len(COLUMNS)) + "|"]
    for config in options.configs:
        run = load_run(config, device=options.device)
        for steps in options.fit_steps:
            source = splatter(
                run,
                SplatOptions(options.cells, steps, options.shared, options.rasteriser),
                TimeOptions(frames=options.frames),
            )
            print(f"{config}: Gaussians {source.way}", flush=True)
            figures = measure(run, source, options)
            rows.append(f"| {config} | {steps} | " + " | ".join(f"{value:.2f}" for value in figures) + " |")
            print(rows[-1], flush=True)
    print("\n" + "\n".join(rows))


if __name__ == "__main__":
    show_input_errors_in_one_line()
    main(tyro.cli(Options, description=__doc__))
