"""Runs and times training steps as the trainer performs them, without the trainer."""

from __future__ import annotations

import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import reduce, wraps
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, cast
from unittest import mock

import torch
from torch import Tensor

from consistent4d_ns import method_configs
from consistent4d_ns import model as model_module
from consistent4d_ns.device import memory
from consistent4d_ns.device.cuda import use_device
from consistent4d_ns.guidance import latent
from consistent4d_ns.guidance.config import GuidanceConfig
from consistent4d_ns.guidance.networks import Zero123Networks
from consistent4d_ns.guidance.random_prior import random_networks
from consistent4d_ns.guidance.zero123 import Zero123Guidance
from consistent4d_ns.method_configs import Consistent4DTrainerConfig
from consistent4d_ns.model import OCCUPANCY_EVERY
from consistent4d_ns.pipeline import Consistent4DPipeline

PRESETS = {
    str(specification.config.method_name): specification
    for specification in (
        method_configs.consistent4d,
        method_configs.consistent4d_big,
        method_configs.consistent4d_mini,
    )
}
"""Presets that can be measured, by method name."""
UNDIVIDED = ("occupancy",)
"""Phases whose nested phases are not timed separately."""
FIELD_METHODS = ("forward", "with_normals", "normals", "density")
"""Methods of the field that the model calls."""


def machine() -> str:
    """The device and torch's version."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return f"{device}, torch {torch.__version__}"


def make_pipeline(
    config: Consistent4DTrainerConfig, data: Path, networks: Zero123Networks | None = None
) -> Consistent4DPipeline:
    """The pipeline of a configuration on its device; `networks`, if given, replace the configured prior.

    As in ns-train, cuDNN benchmarks its algorithms and the allocator extends existing segments.
    """
    use_device(config.machine.device_type)
    torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
    config.data = config.pipeline.datamanager.data = data
    if networks is not None:
        config.pipeline.guidance.kind = "none"
    torch.manual_seed(0)
    pipeline = cast(Consistent4DPipeline, config.pipeline.setup(device=config.machine.device_type, test_mode="val"))
    if networks is not None:
        attach_prior(pipeline, networks)
    return pipeline


def attach_prior(pipeline: Consistent4DPipeline, networks: Zero123Networks) -> None:
    """Make these networks the prior of a pipeline that has none."""
    config = pipeline.config.guidance
    assert isinstance(config, GuidanceConfig)
    prior = Zero123Guidance(networks, config, str(pipeline.device), 0.0)
    prior.prepare(pipeline.datamanager.reference_images())
    pipeline.guidance = prior


def full_size_networks() -> Zero123Networks:
    """A Zero123 of full size with random weights: same time and memory as the real one, no download."""
    return random_networks("full", "cuda" if torch.cuda.is_available() else "cpu", 0)


def make_optimizer(config: Consistent4DTrainerConfig, pipeline: Consistent4DPipeline) -> torch.optim.Optimizer:
    """The optimiser of a configuration for its pipeline's field."""
    return config.optimizers["field"]["optimizer"].setup(params=pipeline.get_param_groups()["field"])


class PhaseTimer:
    """Exclusive milliseconds of named phases; on CUDA measured with events, which need no synchronisation.

    Phases nested in an `UNDIVIDED` phase count towards it.
    """

    def __init__(self, device: torch.device | str) -> None:
        self.cuda = torch.device(device).type == "cuda"
        self.marks: list[tuple[str, int | None, Any, Any]] = []
        self.inside: int | None = None

    def now(self) -> Any:
        """A time stamp: a CUDA event or the host clock."""
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, begin: Any, end: Any) -> float:
        """Milliseconds between two time stamps; on CUDA, the device must have reached the second."""
        return begin.elapsed_time(end) if self.cuda else 1e3 * (end - begin)

    def wait(self) -> None:
        """Synchronise with the device."""
        if self.cuda:
            torch.cuda.synchronize()

    def once(self, action: Callable[[], object]) -> float:
        """Milliseconds of an action that starts on an idle device."""
        self.wait()
        begin = self.now()
        action()
        end = self.now()
        self.wait()
        return self.between(begin, end)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the enclosed block as a phase."""
        if self.inside is not None and self.marks[self.inside][0] in UNDIVIDED:
            yield
            return
        index, outside, begin = len(self.marks), self.inside, self.now()
        self.marks.append((name, outside, begin, begin))
        self.inside = index
        yield
        self.marks[index] = (name, outside, begin, self.now())
        self.inside = outside

    def collect(self) -> dict[str, float]:
        """Milliseconds by phase since the last call."""
        self.wait()
        total: dict[str, float] = defaultdict(float)
        for name, outside, begin, end in self.marks:
            spent = self.between(begin, end)
            total[name] += spent
            if outside is not None:
                total[self.marks[outside][0]] -= spent
        self.marks.clear()
        return dict(total)

    @contextmanager
    def watching(self, parts: list[tuple[str, Any, str]]) -> Iterator[None]:
        """Time calls of functions, given as (phase, owner, attribute name)."""
        with ExitStack() as stack:
            for phase, owner, name in parts:
                stack.enter_context(mock.patch.object(owner, name, self._timed(phase, getattr(owner, name))))
            yield

    def _timed(self, phase: str, function: Any) -> Any:
        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.phase(phase):
                return function(*args, **kwargs)

        return timed


def milliseconds(action: Callable[[], object], rounds: int, device: torch.device | str) -> float:
    """Median time of an action, after three warm-up calls."""
    timer = PhaseTimer(device)
    for _ in range(3):
        action()
    return median(timer.once(action) for _ in range(rounds))


def rendering_parts(model: model_module.Consistent4DModel) -> list[tuple[str, Any, str]]:
    """The phases of rendering and the functions that each is measured in."""
    field_parts = [("field", model.field, name) for name in FIELD_METHODS if hasattr(model.field, name)]
    return [("sampling", model, "sample"), ("compositing", model_module, "composite"), *field_parts]


def step_parts(pipeline: Consistent4DPipeline) -> list[tuple[str, Any, str]]:
    """The phases of a training step and the functions that each is measured in.

    VAE and UNet are timed separately where the prior calls them from Python; a CUDA graph of both counts as `guidance`,
    and a CUDA graph of what is rendered as `replay`.
    """
    parts = [
        ("draws", pipeline, "draw"),
        ("rays", pipeline.datamanager, "batch"),
        ("guidance", pipeline, "distillation_terms"),
        ("ICL", pipeline, "consistency_terms"),
        ("occupancy", pipeline.model, "update_occupancy"),
    ]
    if pipeline.recorded is not None:
        parts.append(("replay", pipeline, "replayed"))
    if isinstance(pipeline.guidance, latent.LatentGuidance):
        parts += [("VAE", pipeline.guidance, "encode"), ("UNet", pipeline.guidance, "predict_noise")]
        parts.append(("VAE", latent, "pull_back"))
    return parts + rendering_parts(pipeline.model)


def train_step(
    pipeline: Consistent4DPipeline, optimizer: torch.optim.Optimizer, step: int, timer: PhaseTimer
) -> tuple[Tensor, dict[str, Tensor]]:
    """One training step; its loss and values for the log."""
    with timer.phase("other"):
        if step % OCCUPANCY_EVERY == 0:
            pipeline.model.update_occupancy(step)
        optimizer.zero_grad()
        _, losses, metrics = pipeline.get_train_loss_dict(step)
        loss = reduce(torch.add, losses.values())
        with timer.phase("backward"):
            loss.backward()
        with timer.phase("optimizer"):
            optimizer.step()
    return loss.detach(), metrics


@dataclass
class StepFigures:
    """Measurements of steps of one kind."""

    ms: list[float] = field(default_factory=list)
    """Milliseconds of each step."""
    samples: list[int] = field(default_factory=list)
    """Samples of each step."""
    rays: list[int] = field(default_factory=list)
    """Rays of each step."""
    phases: list[dict[str, float]] = field(default_factory=list)
    """Milliseconds by phase, measured on separate steps."""


def run_steps(
    pipeline: Consistent4DPipeline, optimizer: torch.optim.Optimizer, begin: int, count: int, warmup: int
) -> dict[str, StepFigures]:
    """Train `warmup + count` steps from `begin` on without synchronising; figures of the last `count`, by kind."""
    timer, kinds, losses = PhaseTimer(pipeline.device), dict[str, StepFigures](), []
    points = [timer.now()]
    taken: list[StepFigures | None] = []
    for step in range(begin, begin + warmup + count):
        loss, metrics = train_step(pipeline, optimizer, step, timer)
        timer.marks.clear()
        losses.append(loss)
        points.append(timer.now())
        figures = kinds.setdefault(kind(pipeline, step), StepFigures()) if step >= begin + warmup else None
        taken.append(figures)
        if figures is not None:
            rays = int(metrics["schedule/rays"])
            figures.samples.append(round(rays * float(metrics["samples_per_ray"])))
            figures.rays.append(rays)
    timer.wait()
    for figures, (first, last) in zip(taken, pairwise(points), strict=True):
        if figures is not None:
            figures.ms.append(timer.between(first, last))
    assert torch.stack(losses).isfinite().all(), "a loss is not finite"
    assert all(p.isfinite().all() for p in pipeline.model.parameters()), "a parameter is not finite"
    return kinds


def run_phases(
    pipeline: Consistent4DPipeline,
    optimizer: torch.optim.Optimizer,
    begin: int,
    count: int,
    into: dict[str, StepFigures],
) -> None:
    """Train `count` more steps and add their phase times to the figures."""
    timer = PhaseTimer(pipeline.device)
    with timer.watching(step_parts(pipeline)):
        for step in range(begin, begin + count):
            train_step(pipeline, optimizer, step, timer)
            spent = timer.collect()
            into.setdefault(kind(pipeline, step), StepFigures()).phases.append(spent)


def kind(pipeline: Consistent4DPipeline, step: int) -> str:
    """Whether a step fits the input view or distils."""
    return "reference" if step % pipeline.datamanager.config.plan.reference_every == 0 else "distillation"


def limit_memory(gib: float | None) -> None:
    """Limit torch's share of GPU memory to this, to emulate a smaller GPU."""
    if gib is not None and torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(gib * 2**30 / total)


def reset_peak_memory() -> None:
    """Release the allocator's cache and restart the peak statistics."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> float:
    """Peak GiB of GPU memory since the last reset; on the CPU, of the process (see `device.memory.peak_memory`)."""
    return (memory.peak_memory("cuda" if torch.cuda.is_available() else "cpu") or 0) / 2**30
