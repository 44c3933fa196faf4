"""Time and memory of training steps, by stage, kind of step and phase.

    python -m benchmarks.train_speed DATA --random-prior [--methods consistent4d consistent4d-big] [--out out.json]

Runs each preset for a number of steps at the beginning of every stage. Medians and means are of steps without
synchronisation; exclusive times of their phases are measured on additional steps afterwards. With `--random-prior`
a full-size Zero123 with random weights replaces the real one: same time and memory, no download. Losses and parameters
are checked to be finite.
"""

from __future__ import annotations

import gc
import json
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Annotated

import tyro

from benchmarks.steps import (
    PRESETS,
    StepFigures,
    full_size_networks,
    limit_memory,
    machine,
    make_optimizer,
    make_pipeline,
    peak_memory,
    reset_peak_memory,
    run_phases,
    run_steps,
)
from consistent4d_ns.device.cuda import take_sums_in_one_order
from consistent4d_ns.method_configs import preset

WARMUP = 24
"""Warm-up steps of each stage, not counted: they compile kernels and capture graphs."""


@dataclass
class Options:
    """Options of the benchmark."""

    data: Annotated[Path, tyro.conf.Positional]
    """Frames to train on."""
    methods: tuple[str, ...] = ("consistent4d", "consistent4d-big")
    """Presets."""
    steps: int = 300
    """Steps per stage."""
    phase_steps: int = 64
    """Steps per stage whose phases are measured."""
    random_prior: bool = False
    """Use a full-size Zero123 with random weights."""
    graphs: bool = True
    """Capture the priors in CUDA graphs, as in training; without them VAE and UNet are timed separately."""
    rendering_graphs: bool = True
    """Capture what steps render in CUDA graphs, as in training; without them its phases are timed separately."""
    deterministic: bool = False
    """Take sums in one order, as `ns-train --deterministic True`."""
    limit_gib: float | None = None
    """Limit of GPU memory in GiB, to find out what fits on a smaller GPU."""
    out: Path | None = None
    """JSON file for the figures."""


@dataclass
class Figures:
    """Measurements of one stage of one preset."""

    method: str
    image_size: int
    peak_gib: float
    stage_steps: int
    """Steps that the preset spends in this stage."""
    kinds: dict[str, StepFigures]
    """By kind of step."""

    @property
    def minutes(self) -> float:
        """Duration of the whole stage, from the mean times of its kinds of steps."""
        return self.stage_steps * mean(mean(kind.ms) for kind in self.kinds.values()) / 60e3


def measure(method: str, options: Options) -> list[Figures]:
    """All stages of one preset, one after the other."""
    config = preset(PRESETS[method])
    config.pipeline.guidance.cuda_graphs = config.pipeline.interpolation.cuda_graphs = options.graphs
    config.pipeline.model.cuda_graphs = options.rendering_graphs
    pipeline = make_pipeline(config, options.data, full_size_networks() if options.random_prior else None)
    optimizer = make_optimizer(config, pipeline)
    plan = config.pipeline.datamanager.plan
    figures = []
    stages = pairwise((*plan.stage_steps, config.max_num_iterations))
    for (begin, end), size in zip(stages, plan.image_sizes, strict=True):
        reset_peak_memory()
        kinds = run_steps(pipeline, optimizer, begin, options.steps, WARMUP)
        figures.append(Figures(method, size, peak_memory(), end - begin, kinds))
        run_phases(pipeline, optimizer, begin + options.steps + WARMUP, options.phase_steps, kinds)
    return figures


def table(figures: Figures) -> str:
    """One stage as Markdown rows."""
    rows = []
    for name, kind in sorted(figures.kinds.items(), reverse=True):
        samples, per_ray = median(kind.samples), sum(kind.samples) / sum(kind.rays)
        rows.append(
            f"| {figures.method} | {figures.image_size} | {name} | {median(kind.ms):.1f} | {mean(kind.ms):.1f} "
            f"| {figures.peak_gib:.1f} | {samples / 1e3:.0f} | {per_ray:.1f} | {phases(kind)} |"
        )
    return "\n".join(rows)


def phases(kind: StepFigures) -> str:
    """Median time of each phase over the steps that have it, longest first."""
    names = {name for spent in kind.phases for name in spent}
    # A phase that not every step has (ICL, occupancy) is given where it occurs; an empty call takes no time.
    occurred = {name: [spent[name] for spent in kind.phases if spent.get(name, 0.0) > 0.02] for name in names}
    medians = sorted(((median(ms), name) for name, ms in occurred.items() if ms), reverse=True)
    return ", ".join(f"{name} {ms:.1f}" for ms, name in medians)


def main(options: Options) -> None:
    """Measure and print."""
    if options.deterministic:
        take_sums_in_one_order()
    limit_memory(options.limit_gib)
    print(f"{machine()}, {options.steps} steps per stage")
    print("| method | px | step | median ms | mean ms | peak GiB | k samples | per ray | phases (median ms) |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    results: list[Figures] = []
    for method in options.methods:
        stages = measure(method, options)
        results += stages
        print("\n".join(map(table, stages)), flush=True)
        minutes = " + ".join(f"{figures.minutes:.1f}" for figures in stages)
        print(f"\n{method}: {sum(f.stage_steps for f in stages)} steps take {minutes} minutes\n", flush=True)
        gc.collect()  # reference cycles: pipeline and panel, guidance and its graphs
    if options.out:
        stages = [asdict(figures) | {"minutes": figures.minutes} for figures in results]
        options.out.write_text(json.dumps({"machine": machine(), "stages": stages}))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
