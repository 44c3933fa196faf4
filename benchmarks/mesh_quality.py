"""Quality lost by meshing: meshes rendered from the evaluation views, compared with volume renders.

    python -m benchmarks.mesh_quality RUN/config.yml RUN/config.yml

For each run, with the default export options unless others are given: intersection over union of the silhouettes of
mesh and volume render, and PSNR against ground truth of the volume render, of the mesh with a colour per vertex and of
the mesh with a texture. The views are those of `ns-eval`; meshes are rendered unlit, with 4 x 4 samples per pixel.
`benchmarks.known_object` trains runs to measure.

With `--moving`, the mesh that moves is measured instead: at the chosen frames, and halfway between each and
the next, where there is no ground truth and the volume render is compared with; and the shape of all its triangles.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Annotated

import torch
import tyro
from jaxtyping import Float
from torch import Tensor

from benchmarks import measures
from benchmarks.four_d import Clips, true_clips
from consistent4d_ns.cli.progress import progress
from consistent4d_ns.data.cameras import OrbitViews
from consistent4d_ns.errors import show_input_errors_in_one_line
from consistent4d_ns.export.deforming.animated import Motion, motion_of, painted
from consistent4d_ns.export.deforming.quality import edge_factors, flipped
from consistent4d_ns.export.deforming.template import edges_of
from consistent4d_ns.export.gltf import glb_moving
from consistent4d_ns.export.looks import picture
from consistent4d_ns.export.moving import MovingMesh
from consistent4d_ns.export.options import MeshOptions, SolidOptions, TimeOptions
from consistent4d_ns.export.sequence import Exporter, Mesh, exporter
from consistent4d_ns.export.shot import shoot
from consistent4d_ns.export.surface import extract
from consistent4d_ns.media.pictures import render_image
from consistent4d_ns.runs import Run, load_run

SAMPLES = 4
"""Samples along each side of a pixel."""
COLUMNS = ("iou", "volume_psnr", "vertex_psnr", "texture_psnr", "to_volume_psnr", "extract_s", "vertex_s", "texture_s")
MOVING_COLUMNS = (
    *("iou", "between_iou", "worst_iou", "volume_psnr", "texture_psnr", "to_volume_psnr", "between_to_volume_psnr"),
    *("missed", "bad_triangles", "edge_factor", "fit_s", "paint_s", "mb"),
)


@dataclass
class Options:
    """Options of the benchmark."""

    configs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """config.yml of finished runs on sequences with ground truth."""
    frames: int = 4
    """Number of evaluated frames per sequence, evenly spaced from the first to the last."""
    moving: bool = False
    """Measure the mesh that moves instead of a mesh per frame."""
    solid: Annotated[SolidOptions, tyro.conf.arg(name="")] = field(default_factory=SolidOptions)
    """Which part of the volume counts as the object."""
    mesh: Annotated[MeshOptions, tyro.conf.arg(name="")] = field(default_factory=MeshOptions)
    """How the object is meshed."""


def measure(run: Run, options: Options) -> dict[str, float]:
    """Means over all evaluation views and the chosen frames."""
    views, truth = true_clips(run.pipeline)
    count = truth.rgb.shape[1]
    frames = torch.linspace(0, count - 1, options.frames).round().long().tolist()
    times = tuple(frame / max(1, count - 1) for frame in frames)
    source = exporter(run, options.solid, TimeOptions(times=times))
    print(f"threshold: {source.solid.threshold}", flush=True)
    cameras = [view.camera for view in views]
    rows = [row for i, frame in enumerate(frames) for row in measure_frame(source, i, cameras, truth, frame, options)]
    return {name: mean(row[name] for row in rows) for name in COLUMNS}


def measure_frame(
    source: Exporter, index: int, cameras: list[OrbitViews], truth: Clips, frame: int, options: Options
) -> Iterator[dict[str, float]]:
    """Metrics of each view at the `index`-th exported time, which is that of frame `frame` of the ground truth."""
    timed = list(source.timeline)[index]
    begin = time.perf_counter()
    surface = extract(source.solid, timed, options.mesh.faces, options.solid.min_part)
    extracted = time.perf_counter()
    size = options.mesh.texture_size
    by_vertex = source.coloured(surface, timed, "vertex", size)
    coloured = time.perf_counter()
    by_texture = source.coloured(surface, timed, "texture", size)
    times = {"extract_s": extracted - begin, "vertex_s": coloured - extracted}
    times["texture_s"] = time.perf_counter() - coloured
    for i, camera in enumerate(cameras):
        true = truth.rgb[i, frame].cpu()
        volume = {k: v.cpu() for k, v in render_image(source.model, camera, timed.time, true.shape[-1]).items()}
        yield times | compare(volume, true, by_vertex, by_texture, camera)


def compare(
    volume: dict[str, Tensor], true: Float[Tensor, "3 size size"], by_vertex: Mesh, by_texture: Mesh, camera: OrbitViews
) -> dict[str, float]:
    """Metrics of one view."""
    volume_rgb = volume["rgb"].movedim(-1, 0)
    shot = shoot(by_vertex.surface, camera, true.shape[-1], SAMPLES)
    vertex, texture = (
        picture(by_vertex, shot),
        picture(by_texture, shoot(by_texture.surface, camera, true.shape[-1], SAMPLES)),
    )
    solid, opaque = (measures.silhouettes(alpha)[None] for alpha in (shot.opacity(), volume["accumulation"][..., 0]))
    pairs = {
        "volume_psnr": (volume_rgb, true),
        "vertex_psnr": (vertex, true),
        "texture_psnr": (texture, true),
        "to_volume_psnr": (texture, volume_rgb),
    }
    figures = {name: float(measures.psnr(a[None], b[None])) for name, (a, b) in pairs.items()}
    return figures | {"iou": float(measures.overlap(solid, opaque))}


def main(options: Options) -> None:
    """Measure all runs and print a Markdown table."""
    moving = options.moving
    columns = MOVING_COLUMNS if moving else COLUMNS
    rows = ["| run | " + " | ".join(columns) + " |", "|---" * (1 + len(columns)) + "|"]
    for config in options.configs:
        figures = (measure_moving if moving else measure)(load_run(config), options)
        name = sequence_name(config)
        rows.append(f"| {name} | " + " | ".join(f"{figures[column]:.3f}" for column in columns) + " |")
        print(rows[-1], flush=True)
    print("\n" + "\n".join(rows))


def measure_moving(run: Run, options: Options) -> dict[str, float]:
    """Means over all evaluation views of the mesh that moves, at the chosen frames and between them."""
    views, truth = true_clips(run.pipeline)
    count = truth.rgb.shape[1]
    source = exporter(run, options.solid, TimeOptions(frames=count))
    begin = time.perf_counter()
    motion = motion_of(source, options.mesh.faces, progress)
    fitted = time.perf_counter()
    mesh = painted(motion, source, options.mesh, "texture", progress)
    figures = {"fit_s": fitted - begin, "paint_s": time.perf_counter() - fitted}
    figures["missed"] = max(left.missed for left in motion.residuals)
    figures |= shape_of(motion) | {"mb": len(glb_moving(mesh, source.timeline.fps)) / 1e6}
    frames = torch.linspace(0, count - 1, min(options.frames, count)).round().long().tolist()
    rows = [show(source, mesh, view.camera, truth.rgb[i], frame) for frame in frames for i, view in enumerate(views)]
    return (
        figures | {name: mean(row[name] for row in rows) for name in rows[0]} | {"worst_iou": worst(rows, len(views))}
    )


def worst(rows: list[dict[str, float]], views: int) -> float:
    """The lowest mean over the views of the overlap at a frame or between two."""
    names = ("iou", "between_iou")
    return min(mean(row[k] for row in rows[i : i + views]) for i in range(0, len(rows), views) for k in names)


def shape_of(motion: Motion) -> dict[str, float]:
    """Counts of bad triangles of all frames, and the largest change of an edge's length by a factor."""
    rest, edges = motion.template.vertices, edges_of(motion.template.faces)
    bad = sum(int(flipped(place, rest, motion.template.faces).sum()) for place in motion.positions)
    stretched = max(float(edge_factors(place, rest, edges).max()) for place in motion.positions)
    return {"bad_triangles": bad, "edge_factor": stretched}


def show(
    source: Exporter, mesh: MovingMesh, camera: OrbitViews, true: Float[Tensor, "frames 3 size size"], frame: int
) -> dict[str, float]:
    """Metrics of one view at a frame, and halfway to the next or, from the last, to the one before."""
    size, last = true.shape[-1], len(mesh) - 1
    other = frame + 1 if frame < last else frame - 1
    halfway = replace(mesh, positions=0.5 * (mesh.positions[[frame]] + mesh.positions[[other]]))
    figures: dict[str, float] = {}
    for name, shape, at in (("", mesh.frame(frame), frame), ("between_", halfway.frame(0), 0.5 * (frame + other))):
        volume = {k: v.cpu() for k, v in render_image(source.model, camera, at / last, size).items()}
        rgb, shot = volume["rgb"].movedim(-1, 0), shoot(shape.surface, camera, size, SAMPLES)
        solid, opaque = (measures.silhouettes(a)[None] for a in (shot.opacity(), volume["accumulation"][..., 0]))
        seen = picture(shape, shot)
        figures[f"{name}iou"] = float(measures.overlap(solid, opaque))
        figures[f"{name}to_volume_psnr"] = float(measures.psnr(seen[None], rgb[None]))
        if not name:
            figures["volume_psnr"] = float(measures.psnr(rgb[None], true[frame].cpu()[None]))
            figures["texture_psnr"] = float(measures.psnr(seen[None], true[frame].cpu()[None]))
    return figures


def sequence_name(config: Path) -> str:
    """Name of a run's sequence; folders of runs are SEQUENCE/METHOD/TIME."""
    folder = config if config.is_dir() else config.parent
    return folder.resolve().parent.parent.name


if __name__ == "__main__":
    show_input_errors_in_one_line()
    main(tyro.cli(Options, description=__doc__))
