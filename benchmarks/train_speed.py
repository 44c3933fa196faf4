"""Time and memory of training steps, by stage, kind of step and phase.

    python benchmarks/train_speed.py DATA --random-prior [--methods consistent4d consistent4d-lite] [--json out.json]

Runs each preset for a number of steps at the beginning of every stage and prints medians in milliseconds. With
`--random-prior` a Zero123 of full size with random weights stands in for the real one: same time and memory, no
download. Losses and parameters are checked to be finite.
"""

from __future__ import annotations

import json
import platform
import resource
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import tyro

from consistent4d_ns import method_configs
from consistent4d_ns.guidance.random_prior import random_networks
from consistent4d_ns.guidance.zero123 import Zero123Guidance
from consistent4d_ns.method_configs import Consistent4DTrainerConfig, preset
from consistent4d_ns.model import OCCUPANCY_EVERY
from consistent4d_ns.pipeline import Consistent4DPipeline

PRESETS = {
    "consistent4d": method_configs.consistent4d,
    "consistent4d-lite": method_configs.consistent4d_lite,
    "consistent4d-big": method_configs.consistent4d_big,
    "consistent4d-mini": method_configs.consistent4d_mini,
}
WARMUP = 12
"""Steps of each stage that are run but not counted."""


@dataclass
class Options:
    """What is run."""

    data: Annotated[Path, tyro.conf.Positional]
    """Frames to train on."""
    methods: tuple[str, ...] = ("consistent4d", "consistent4d-lite", "consistent4d-big")
    """Presets."""
    steps: int = 300
    """Steps per stage."""
    random_prior: bool = False
    """Use a full-size Zero123 with random weights."""
    json: Path | None = None
    """Where the figures are written as JSON."""


class PhaseTimer:
    """Adds up the milliseconds of named phases; on CUDA between events, so that nothing waits inside a step."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.marks: list[tuple[str, Any, Any]] = []

    def now(self) -> Any:
        """A point in time."""
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Times what is done inside."""
        begin = self.now()
        yield
        self.marks.append((name, begin, self.now()))

    def wrap(self, name: str, function: Callable) -> Callable:
        """The function, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.phase(name):
                return function(*args, **kwargs)

        return timed

    def collect(self) -> dict[str, float]:
        """Milliseconds by phase since the last call; waits for the device."""
        if self.cuda:
            torch.cuda.synchronize()
        total: dict[str, float] = defaultdict(float)
        for name, begin, end in self.marks:
            total[name] += begin.elapsed_time(end) if self.cuda else 1e3 * (end - begin)
        self.marks.clear()
        return total


@dataclass
class Figures:
    """What was measured at one stage of one preset."""

    method: str
    image_size: int
    peak_gib: float
    steps: dict[str, list[dict[str, float]]] = field(default_factory=lambda: defaultdict(list))
    """Milliseconds by phase of every step, by kind."""


def make_pipeline(config: Consistent4DTrainerConfig, options: Options) -> Consistent4DPipeline:
    """The preset on its device, with the random prior if asked for."""
    config.data = config.pipeline.datamanager.data = options.data
    guidance = config.pipeline.guidance
    if options.random_prior:
        guidance.kind = "none"
    torch.manual_seed(0)
    device = config.machine.device_type
    pipeline = config.pipeline.setup(device=device, test_mode="val")
    if options.random_prior:
        prior = Zero123Guidance(random_networks("full", device, 0), guidance, device, 0.0)
        prior.prepare(pipeline.datamanager.reference_images())
        pipeline.guidance = prior
    return pipeline


def instrument(pipeline: Consistent4DPipeline, timer: PhaseTimer) -> None:
    """Time the parts of a step where they are called."""
    for phase, owner, name in (
        ("draws", pipeline, "draw"),
        ("sampling", pipeline.model, "sample"),
        ("render", pipeline.model, "render"),
        ("guidance", pipeline, "distillation_terms"),
        ("consistency", pipeline, "consistency_terms"),
        ("occupancy", pipeline.model, "update_occupancy"),
    ):
        setattr(owner, name, timer.wrap(phase, getattr(owner, name)))


def run_stage(pipeline: Consistent4DPipeline, optimizer: Any, begin: int, options: Options, timer: PhaseTimer) -> dict:
    """Train from step `begin`; milliseconds by phase of every counted step, by kind of step."""
    steps: dict[str, list[dict[str, float]]] = defaultdict(list)
    for step in range(begin, begin + options.steps):
        with timer.phase("step"):
            if step % OCCUPANCY_EVERY == 0:
                pipeline.model.update_occupancy(step)
            optimizer.zero_grad()
            outputs, losses, _ = pipeline.get_train_loss_dict(step)
            loss = torch.stack(list(losses.values())).sum()
            with timer.phase("backward"):
                loss.backward()
            with timer.phase("optimizer"):
                optimizer.step()
        spent = timer.collect()
        assert torch.isfinite(loss), f"the loss is not finite at step {step}"
        if step >= begin + WARMUP:
            spent["samples"] = float(outputs["rendering"].weights.shape[1])
            steps["reference" if step % 2 == 0 else "distillation"].append(spent)
    return steps


def peak_memory(cuda: bool) -> float:
    """GiB that tensors took on the GPU at most since the last reset; on the CPU, that the process ever took."""
    if cuda:
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(method: str, options: Options) -> list[Figures]:
    """All stages of one preset, one after the other."""
    config = preset(PRESETS[method])
    pipeline = make_pipeline(config, options)
    timer = PhaseTimer(torch.device(config.machine.device_type))
    instrument(pipeline, timer)
    optimizer = config.optimizers["field"]["optimizer"].setup(params=pipeline.get_param_groups()["field"])
    plan = config.pipeline.datamanager.plan
    figures = []
    for begin, size in zip(plan.stage_steps, plan.image_sizes):
        if timer.cuda:
            torch.cuda.reset_peak_memory_stats()
        steps = run_stage(pipeline, optimizer, begin, options, timer)
        assert all(torch.isfinite(p).all() for p in pipeline.model.parameters()), "a parameter is not finite"
        figures.append(Figures(method, size, peak_memory(timer.cuda), steps))
    return figures


def table(figures: Figures) -> str:
    """Medians of one stage as Markdown rows."""
    rows = []
    for kind, steps in figures.steps.items():
        names = sorted({name for spent in steps for name in spent} - {"step", "samples"})
        # A phase that not every step has (consistency, occupancy) is given where it occurs: an empty call takes no time
        occurred = {name: [spent[name] for spent in steps if spent.get(name, 0.0) > 0.02] for name in names}
        phases = {name: median(ms) for name, ms in occurred.items() if ms}
        parts = ", ".join(f"{name} {ms:.1f}" for name, ms in sorted(phases.items(), key=lambda item: -item[1]))
        step, samples = (median([spent[name] for spent in steps]) for name in ("step", "samples"))
        mean = sum(spent["step"] for spent in steps) / len(steps)
        head = (
            f"| {figures.method} | {figures.image_size} | {kind} | {step:.1f} | {mean:.1f} | {figures.peak_gib:.1f} |"
        )
        rows.append(f"{head} {samples / 1e3:.0f} | {parts} |")
    return "\n".join(rows)


def main(options: Options) -> None:
    """Measure and print."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    print(f"{device}, torch {torch.__version__}, {options.steps} steps per stage")
    print("| method | px | step | median ms | mean ms | peak GiB | k samples | phases (median ms, nested) |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    results = []
    for method in options.methods:
        for figures in measure(method, options):
            print(table(figures), flush=True)
            results.append(vars(figures))
    if options.json:
        options.json.write_text(json.dumps({"device": device, "stages": results}))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
