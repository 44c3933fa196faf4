"""The input camera's elevation, estimated by a prior from frames that were rendered at a known one.

    python -m benchmarks.elevation elevation.json --meshes library.xz --data gt4d/Fox gt4d/Trex

The toy and models that the bundled prior never saw (`python -m training.meshes` packs them: all animated ones that are
held out, and some static ones, at random but always the same) are rendered at each elevation. A sequence with ground
truth gives a clip from each of its views. Writes the results file after each clip, and prints tables of the error.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median
from typing import Annotated

import torch
import tyro
from jaxtyping import Float
from torch import Tensor

from consistent4d_ns.data.cameras import DEFAULT_CAMERA
from consistent4d_ns.data.dataparser import FrameSequence, FrameSequenceDataParserConfig
from consistent4d_ns.data.dataset import shared_frames
from consistent4d_ns.data.images import composite_white
from consistent4d_ns.errors import show_input_errors_in_one_line
from consistent4d_ns.guidance.config import GuidanceConfig
from consistent4d_ns.guidance.loading import build_guidance
from consistent4d_ns.guidance.zero123 import Zero123Guidance
from consistent4d_ns.targets.elevation import estimate_elevation
from consistent4d_ns.toy import ToyTruth
from training.meshes import MeshLibrary, load_meshes
from training.scenes import Cameras, Scenes, draw_scenes, render

SIZE = 64
"""Side of the frames in pixels, that of the bundled prior."""
FRAMES = 4
"""Frames of a rendered clip."""
RADIUS = 0.55
"""Distance of an object's farthest corner from its centre, in world units."""


@dataclass
class Options:
    """Options of the benchmark."""

    out: Annotated[Path, tyro.conf.Positional]
    """Results file (JSON)."""
    meshes: Path | None = None
    """Library of meshes, of which held-out models are rendered; none by default."""
    static: int = 12
    """How many of its static held-out models are rendered."""
    data: tuple[Path, ...] = ()
    """Sequences with ground truth."""
    elevations: tuple[float, ...] = (-10.0, 0.0, 15.0, 25.0, 40.0)
    """Elevations in degrees of what is rendered."""
    toy: bool = True
    """Whether the toy is rendered, too."""
    prior: str = "bundled"
    """The prior (see `GuidanceConfig.prior`)."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where it samples."""


@dataclass(frozen=True)
class Clip:
    """Frames whose elevation is known."""

    group: str
    """Kind of object."""
    name: str
    """The object."""
    elevation: float
    """True elevation in degrees."""
    images: Float[Tensor, "frames 3 size size"]
    """In [0, 1] on white."""


@dataclass(frozen=True)
class Result:
    """The estimate for a clip, in degrees."""

    group: str
    name: str
    elevation: float
    estimate: float
    spread: float
    seconds: float
    """Wall-clock time of conditions and estimate."""

    @property
    def error(self) -> float:
        """Positive where the estimate is too high."""
        return self.estimate - self.elevation


def toy_clips(elevations: Sequence[float]) -> Iterator[Clip]:
    """The toy from its front."""
    truth, frames = ToyTruth(SIZE, FRAMES), torch.arange(FRAMES)
    for elevation in elevations:
        angles = torch.full((FRAMES,), float(elevation))
        images = truth(angles, torch.zeros(FRAMES), torch.full((FRAMES,), DEFAULT_CAMERA["distance"]), frames)
        yield Clip("toy", "toy", elevation, images)


def sequence_clips(path: Path) -> Iterator[Clip]:
    """One clip of each view of a sequence with ground truth."""
    sequence = FrameSequence(FrameSequenceDataParserConfig(data=path, image_size=SIZE))
    for view in (sequence.input_view, *sequence.unseen_views):
        images = composite_white(shared_frames((view.frames,), SIZE).float())
        yield Clip("sequences", path.name, float(view.camera.elevation[0]), images)


def mesh_clips(library: MeshLibrary, static: int, elevations: Sequence[float]) -> Iterator[Clip]:
    """Held-out models from a random side: all animated ones in some of their poses, and `static` others."""
    generator = torch.Generator().manual_seed(0)
    held_out = library.held_out.nonzero()[:, 0]
    animated = library.animated[held_out]
    others = held_out[~animated]
    others = others[torch.randperm(len(others), generator=generator)[:static]]
    for model in torch.cat((held_out[animated], others)).tolist():
        azimuth = 360 * float(torch.rand((), generator=generator))
        for elevation, rgba in zip(elevations, clips_of(library, model, azimuth, elevations, generator), strict=True):
            group = "animated meshes" if library.animated[model] else "static meshes"
            yield Clip(group, library.names[model], elevation, composite_white(rgba))


def clips_of(
    library: MeshLibrary,
    model: int,
    azimuth: float | Sequence[float],
    elevations: Sequence[float],
    generator: torch.Generator,
    size: int = SIZE,
    frames: int = FRAMES,
) -> Float[Tensor, "elevations frames 4 size size"]:
    """A model in its first poses, one after another, from each elevation; at one azimuth, or at one for each."""
    poses = (library.models == model).nonzero()[:frames, 0]
    corners = library.soups.select(poses[:1]).positions.flatten(0, 1)
    centre = 0.5 * (corners.amin(dim=0) + corners.amax(dim=0))
    scale = RADIUS / (corners - centre).norm(dim=-1).max()
    look, same = draw_scenes(poses[:1], generator), torch.zeros_like(poses)
    scenes = Scenes(
        objects=poses,
        linear=scale * torch.eye(3).expand(len(poses), 3, 3),
        shift=-scale * centre.expand(len(poses), 3),
        recolour=look.recolour[same],
        light=look.light[same],
        ambient=look.ambient[same],
        softness=look.softness[same],
    )
    elevation = torch.tensor(elevations).expand(len(poses), -1)
    distance = torch.full_like(elevation, DEFAULT_CAMERA["distance"])
    cameras = Cameras(elevation, torch.tensor(azimuth).expand_as(elevation), distance)
    return torch.cat(list(render(library.soups, scenes, cameras, size))).transpose(0, 1)


def all_clips(options: Options) -> Iterator[Clip]:
    """All clips that the options ask for."""
    if options.toy:
        yield from toy_clips(options.elevations)
    for path in options.data:
        yield from sequence_clips(path)
    if options.meshes is not None:
        yield from mesh_clips(load_meshes(options.meshes, "cpu"), options.static, options.elevations)


def measure(guidance: Zero123Guidance, clip: Clip) -> Result:
    """Estimate the elevation of a clip."""
    begin = time.perf_counter()
    guidance.prepare(clip.images)
    estimate = estimate_elevation(guidance, clip.images)
    seconds = time.perf_counter() - begin
    return Result(clip.group, clip.name, clip.elevation, estimate.degrees, estimate.spread, seconds)


def table(title: str, results: Sequence[Result], key: Callable[[Result], str]) -> str:
    """Errors in degrees of all results that share a key, as markdown."""
    rows = {"all": list(results)}
    for result in results:
        rows.setdefault(key(result), []).append(result)
    lines = [f"| {title} | clips | median error | 80 % below | greatest | mean, signed | seconds |", "|---" * 7 + "|"]
    for name, some in rows.items():
        errors = sorted(abs(result.error) for result in some)
        figures = (median(errors), errors[math.ceil(0.8 * len(errors)) - 1], errors[-1])
        cells = " | ".join(f"{figure:.1f}" for figure in figures)
        signed, seconds = mean(result.error for result in some), median(result.seconds for result in some)
        lines.append(f"| {name} | {len(some)} | {cells} | {signed:+.1f} | {seconds:.0f} |")
    return "\n".join(lines)


def main(options: Options) -> None:
    """Estimate the elevation of all clips, and write and print the errors."""
    guidance = build_guidance(GuidanceConfig(prior=options.prior, previews=True), 0.0, options.device)
    assert guidance is not None
    results: list[Result] = []
    for clip in all_clips(options):
        results.append(measure(guidance, clip))
        print(json.dumps(asdict(results[-1])), flush=True)
        options.out.write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n")
    print(table("kind of object", results, lambda result: result.group))
    print(table("object", results, lambda result: result.name))
    print(table("true elevation", results, lambda result: f"{result.elevation:g}"))


if __name__ == "__main__":
    show_input_errors_in_one_line()
    main(tyro.cli(Options, description=__doc__))
