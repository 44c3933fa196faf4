"""Frames per second of the viewer while training is paused, with a breakdown of the frame time.

    python -m benchmarks.viewer_speed [DATA] [--out viewer.json]

Fits the input view (of the toy unless DATA is given) for some steps, so that the occupancy grid becomes sparse, then
renders cameras around the object as the viewer does: ray generation, all outputs of all levels, and the copy of the
image to the CPU. Modes: the viewer's outputs, no normals, and smaller chunks of rays.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated
from unittest import mock

import tyro
from nerfstudio.cameras.cameras import Cameras

from benchmarks.steps import (
    PRESETS,
    PhaseTimer,
    machine,
    make_optimizer,
    make_pipeline,
    peak_memory,
    rendering_parts,
    reset_peak_memory,
    run_steps,
)
from consistent4d_ns import model as model_module
from consistent4d_ns.data.cameras import orbit_views
from consistent4d_ns.data.rays import focal_length
from consistent4d_ns.method_configs import preset
from consistent4d_ns.model import Consistent4DModel
from consistent4d_ns.pipeline import Consistent4DPipeline
from consistent4d_ns.toy import write_sequence

WARMUP = 5
"""Warm-up frames, not counted."""


@dataclass
class Options:
    """Options of the benchmark."""

    data: Annotated[Path | None, tyro.conf.Positional] = None
    """Frames to fit; the toy if none are given."""
    preset: str = "consistent4d"
    """Preset of the field."""
    steps: int = 300
    """Steps of fitting."""
    size: int = 512
    """Side of the viewer's picture in pixels."""
    frames: int = 40
    """Frames measured."""
    out: Path | None = None
    """JSON file for the figures."""


@dataclass
class Figures:
    """Measurements of one mode."""

    mode: str
    ms: list[float] = field(default_factory=list)
    """Milliseconds of each frame, until its image is on the CPU."""
    phases: list[dict[str, float]] = field(default_factory=list)
    """Milliseconds by phase, measured on separate frames."""
    peak_gib: float = 0.0

    def row(self) -> str:
        """A row of the table."""
        names = {name for spent in self.phases for name in spent}
        parts = sorted(((median(s.get(name, 0.0) for s in self.phases), name) for name in names), reverse=True)
        split = ", ".join(f"{name} {ms:.1f}" for ms, name in parts)
        rate = 1e3 / median(self.ms)
        return f"| {self.mode} | {rate:.1f} | {median(self.ms):.1f} | {self.peak_gib:.2f} | {split} |"


@contextmanager
def frames_of(data: Path | None) -> Iterator[Path]:
    """The data, or a temporary toy sequence."""
    if data is not None:
        yield data
        return
    with tempfile.TemporaryDirectory() as folder:
        write_sequence(Path(folder) / "toy", size=128, frames=16, samples_per_side=2)
        yield Path(folder) / "toy"


def fitted(data: Path, options: Options) -> Consistent4DPipeline:
    """A field that shows the input view."""
    config = preset(PRESETS[options.preset])
    config.pipeline.guidance.kind = config.pipeline.interpolation.kind = "none"
    pipeline = make_pipeline(config, data)
    run_steps(pipeline, make_optimizer(config, pipeline), 0, options.steps, 0)
    pipeline.eval()
    return pipeline


def cameras(pipeline: Consistent4DPipeline, options: Options) -> Iterator[Cameras]:
    """Cameras around the object, at times throughout the sequence."""
    view, device = pipeline.datamanager.input_view, pipeline.device
    count = WARMUP + options.frames
    for index in range(count):
        place = orbit_views(20.0, 360.0 * index / count, float(view.distance), float(view.fovy))
        focal, half = float(focal_length(place.fovy, options.size)), options.size / 2
        camera = Cameras(place.poses(), focal, focal, half, half, options.size, options.size)
        camera.times = camera.camera_to_worlds.new_full((1, 1), index / count)
        yield camera.to(device)


def frame(model: Consistent4DModel, camera: Cameras) -> None:
    """Render one frame as the viewer does."""
    model.get_outputs_for_camera(camera)["rgb"].clamp(0.0, 1.0).mul(255.0).byte().cpu()


def measure(pipeline: Consistent4DPipeline, options: Options, mode: str) -> Figures:
    """Time all frames, then again by phase."""
    figures, timer = Figures(mode), PhaseTimer(pipeline.device)
    reset_peak_memory()
    for camera in cameras(pipeline, options):
        figures.ms.append(timer.once(lambda camera=camera: frame(pipeline.model, camera)))
    figures.peak_gib = peak_memory()
    del figures.ms[:WARMUP]
    parts = [("rays", Cameras, "generate_rays"), *rendering_parts(pipeline.model)]
    with timer.watching(parts):
        for camera in cameras(pipeline, options):
            with timer.phase("other"):
                frame(pipeline.model, camera)
            figures.phases.append(timer.collect())
    del figures.phases[:WARMUP]
    return figures


def main(options: Options) -> None:
    """Fit, measure, print."""
    with frames_of(options.data) as data:
        pipeline = fitted(data, options)
    model = pipeline.model
    share = float(model.occupancy.occupied.float().mean())
    print(f"{machine()}, {options.preset} after {options.steps} steps, {share:.1%} of the box occupied,")
    print(f"{options.size} x {options.size} pixels, medians over {options.frames} frames")
    print("| mode | frames per second | ms | peak GiB | phases (median ms) |\n|---|---|---|---|---|", flush=True)
    results = [measure(pipeline, options, "as it is")]
    print(results[0].row(), flush=True)
    model.config.render_normals = False
    results.append(measure(pipeline, options, "no normals"))
    print(results[1].row(), flush=True)
    model.config.render_normals = True
    for chunks in (1, 4):
        with mock.patch.object(model_module, "CUDA_CHUNKS", chunks):
            results.append(measure(pipeline, options, f"{model.rays_at_once} rays at once"))
        print(results[-1].row(), flush=True)
    if options.out:
        results_as_json = [asdict(figures) for figures in results]
        options.out.write_text(json.dumps({"machine": machine(), "occupied": share, "modes": results_as_json}))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
