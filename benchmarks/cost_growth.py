"""How time and memory of a training step scale, varying one quantity of the `consistent4d` preset at a time.

    python -m benchmarks.cost_growth DATA --random-prior --out growth.json --plot growth.png

Varied are views per step, image side, levels of the cascade, frames of the video (those of DATA, repeated) and samples
per ray; everything else is as at the start of the preset's first stage. The field is untrained, so the samples are
those of the ball that it is initialised to.
"""

from __future__ import annotations

import copy
import gc
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import tyro

from benchmarks.steps import (
    PRESETS,
    full_size_networks,
    machine,
    make_optimizer,
    make_pipeline,
    peak_memory,
    reset_peak_memory,
    run_steps,
)
from consistent4d_ns.guidance.networks import Zero123Networks
from consistent4d_ns.method_configs import Consistent4DTrainerConfig, preset
from consistent4d_ns.targets.config import TargetsConfig

BIG_LEVELS = ((50, 50, 50, 8), (100, 100, 100, 16), (200, 200, 200, 32), (200, 200, 200, 32))
"""Grids of up to four levels, as in `consistent4d-big`."""
WARMUP = 6
"""Warm-up steps, not counted."""


@dataclass
class Options:
    """Options of the benchmark."""

    data: Annotated[Path, tyro.conf.Positional]
    """Frames to train on."""
    random_prior: bool = False
    """Distil from a full-size Zero123 with random weights."""
    preset: str = "consistent4d"
    """Preset to vary."""
    views: tuple[int, ...] = (1, 2, 4, 8)
    """Views per step, at 64 pixels."""
    sides: tuple[int, ...] = (64, 128, 256, 512)
    """Image sides in pixels, with one view per step."""
    levels: tuple[int, ...] = (1, 2, 3, 4)
    """Levels of the cascade."""
    frames: tuple[int, ...] = (8, 100, 1000)
    """Frames of the video."""
    samples: tuple[int, ...] = (64, 128, 256, 512)
    """Samples along the diagonal of the box."""
    steps: int = 12
    """Steps measured at each point."""
    out: Path | None = None
    """JSON file for the figures."""
    plot: Path | None = None
    """PNG file for the plot."""


@dataclass
class Cost:
    """Cost of a training step of one configuration."""

    reference_ms: float
    distillation_ms: float
    peak_gib: float
    samples: int
    """Samples of a distillation step."""


@dataclass
class Point:
    """Measurement at one value of one quantity."""

    quantity: str
    value: int
    cost: Cost


def set_views(config: Consistent4DTrainerConfig, value: int) -> None:
    """Use `value` views in every distillation step."""
    plan = config.pipeline.datamanager.plan
    plan.views = plan.clip_views = (value,)


def set_side(config: Consistent4DTrainerConfig, value: int) -> None:
    """Render images of this side, one view per step."""
    config.pipeline.datamanager.plan.image_sizes = (value,)
    config.pipeline.datamanager.dataparser.image_size = max(256, value)
    set_views(config, 1)


def set_levels(config: Consistent4DTrainerConfig, value: int) -> None:
    """Keep the first `value` levels of the largest cascade."""
    config.pipeline.model.grid_resolutions = BIG_LEVELS[:value]


def set_frames(config: Consistent4DTrainerConfig, value: int) -> None:
    """Leave the configuration as it is: the data are replaced instead."""


def set_samples(config: Consistent4DTrainerConfig, value: int) -> None:
    """Take `value` samples along the diagonal of the box."""
    config.pipeline.model.samples_per_ray = value


QUANTITIES: dict[str, tuple[str, Callable[[Consistent4DTrainerConfig, int], None]]] = {
    "views": ("views per step", set_views),
    "sides": ("image side (1 view)", set_side),
    "levels": ("levels", set_levels),
    "frames": ("frames", set_frames),
    "samples": ("samples per ray", set_samples),
}
"""Options and what they vary."""


def first_stage(name: str) -> Consistent4DTrainerConfig:
    """A preset whose first stage lasts for all of training."""
    config = preset(PRESETS[name])
    plan = config.pipeline.datamanager.plan
    for name in ("stage_steps", "image_sizes", "views", "clip_views"):
        setattr(plan, name, getattr(plan, name)[:1])
    return config


@contextmanager
def repeated(data: Path, count: int) -> Iterator[Path]:
    """A folder of `count` frames: those of `data`, repeated cyclically."""
    config = first_stage("consistent4d-mini")
    config.pipeline.datamanager.dataparser.data = data
    files = config.pipeline.datamanager.dataparser.setup().get_dataparser_outputs("train").image_filenames
    with tempfile.TemporaryDirectory() as folder:
        for index in range(count):
            source = files[index % len(files)].resolve()
            (Path(folder) / f"{index:05d}{source.suffix}").symlink_to(source)
        yield Path(folder)


def measure(config: Consistent4DTrainerConfig, data: Path, steps: int, networks: Zero123Networks | None) -> Cost:
    """Time and memory of steps of one configuration; `networks` are not modified."""
    config.pipeline.targets = TargetsConfig()  # Distillation is measured, not the steps that fit target views.
    # Guidance frees and replaces parts of the networks that it is given.
    pipeline = make_pipeline(config, data, copy.deepcopy(networks))
    optimizer = make_optimizer(config, pipeline)
    reset_peak_memory()
    kinds = run_steps(pipeline, optimizer, 0, steps, WARMUP)
    reference, distillation = kinds["reference"], kinds["distillation"]
    samples = round(median(distillation.samples))
    cost = Cost(median(reference.ms), median(distillation.ms), peak_memory(), samples)
    del pipeline, optimizer
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return cost


def stored_networks() -> Zero123Networks:
    """Full-size networks in half precision on the CPU, to be copied for each point."""
    networks = full_size_networks()
    for network in (networks.unet, networks.vae, networks.image_encoder, networks.projection):
        network.half().cpu()
    return networks


def sweep(options: Options, networks: Zero123Networks | None) -> Iterator[Point]:
    """All quantities, one after the other; identical configurations are measured once."""
    known: dict[str, Cost] = {}
    for quantity, (_, change) in QUANTITIES.items():
        for value in getattr(options, quantity):
            config = first_stage(options.preset)
            change(config, value)
            key = f"{config.pipeline} {value if quantity == 'frames' else ''}"
            if key not in known:
                with repeated(options.data, value) if quantity == "frames" else nullcontext(options.data) as data:
                    known[key] = measure(config, data, options.steps, networks)
            yield Point(quantity, value, known[key])


def plot(points: list[Point], path: Path) -> None:
    """Plot time (top) and memory (bottom), one column per quantity."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(QUANTITIES), 5.0), layout="constrained")
    axes: Any = figure.subplots(2, len(QUANTITIES), sharex="col", squeeze=False)
    for column, (quantity, (label, _)) in enumerate(QUANTITIES.items()):
        some = [point for point in points if point.quantity == quantity]
        values = [point.value for point in some]
        for kind in ("reference", "distillation"):
            axes[0, column].plot(values, [getattr(point.cost, f"{kind}_ms") for point in some], "o-", label=kind)
        axes[1, column].plot(values, [point.cost.peak_gib for point in some], "o-", color="tab:green")
        axes[1, column].set_xlabel(label)
        if quantity != "levels":
            axes[1, column].set_xscale("log", base=2)
        for row in (0, 1):
            axes[row, column].set_ylim(0, 1.1 * axes[row, column].get_ylim()[1])
            axes[row, column].set_xticks(values, [str(value) for value in values])
            axes[row, column].minorticks_off()
            axes[row, column].grid(alpha=0.3)
    axes[0, 0].set_ylabel("milliseconds per step")
    axes[1, 0].set_ylabel("peak memory (GiB)")
    axes[0, 0].legend()
    figure.savefig(path, dpi=110)


def main(options: Options) -> None:
    """Measure, print and plot."""
    begin = time.perf_counter()
    networks = stored_networks() if options.random_prior else None
    print(f"{machine()}, {options.preset}, {options.steps} steps at each point")
    print(
        "| quantity | value | reference (ms) | distillation (ms) | peak (GiB) | k samples |\n|---|---|---|---|---|---|"
    )
    points: list[Point] = []
    for point in sweep(options, networks):
        points.append(point)
        cost, label = point.cost, QUANTITIES[point.quantity][0]
        print(
            f"| {label} | {point.value} | {cost.reference_ms:.1f} | {cost.distillation_ms:.1f} | {cost.peak_gib:.2f} "
            f"| {cost.samples / 1e3:.0f} |",
            flush=True,
        )
    print(f"\nin {time.perf_counter() - begin:.0f} s")
    if options.out:
        options.out.write_text(json.dumps({"machine": machine(), "points": [asdict(point) for point in points]}))
    if options.plot:
        plot(points, options.plot)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
