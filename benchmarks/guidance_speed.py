"""Time and memory of distillation and interpolation alone: eager, CUDA graphs, channels-last and fused kernels.

    python -m benchmarks.guidance_speed [--kernels 15]

A full-size Zero123 and a RIFE, both with random weights, are evaluated on random images of the shapes used in training.
Times are median milliseconds from images to the images' gradient. Memory is in GiB: peak allocated, peak reserved, and
still reserved between steps, networks included. Gradients are compared with the eager ones. cuDNN benchmarks its
algorithms, as in ns-train.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import torch
import tyro
from torch import Tensor, nn

from benchmarks.steps import PhaseTimer, machine
from consistent4d_ns.guidance.base import draw
from consistent4d_ns.guidance.config import GuidanceConfig, Implementation
from consistent4d_ns.guidance.random_prior import random_networks
from consistent4d_ns.guidance.zero123 import Zero123Guidance
from consistent4d_ns.interpolation.consistency import Interpolator, consistency_loss
from consistent4d_ns.interpolation.ifnet import IFNet

LEVELS = 2
"""Levels of the preset `consistent4d`."""
STAGES = ((64, 4), (256, 1))
"""Side of the images in pixels and views of a distillation step, by stage of training."""
CLIPS = ((64, 4), (256, 4))
"""Side in pixels and views of the interpolated clips."""
Step = Callable[[], Tensor]
"""Computes the gradient with respect to the images."""


@dataclass
class Options:
    """Options of the benchmark."""

    rounds: int = 20
    """Timed calls."""
    prior: Literal["full", "small"] = "full"
    """Size of the prior; `small` is for a quick test of this script."""
    cudnn_benchmark: bool = True
    """Whether cuDNN benchmarks its algorithms."""
    kernels: int = 0
    """Number of slowest kernels to list for each row."""


@dataclass(frozen=True)
class Variant:
    """A way to run the prior."""

    name: str
    graphs: bool
    channels_last: bool = False
    implementation: Implementation = "torch"


VARIANTS = (
    Variant("eager", graphs=False),
    Variant("eager, channels last", graphs=False, channels_last=True),
    Variant("graphs", graphs=True),
    Variant("graphs, channels last", graphs=True, channels_last=True),
    Variant("eager, fused", graphs=False, implementation="fused"),
    Variant("graphs, fused", graphs=True, implementation="fused"),
)


def build(variant: Variant, options: Options, device: str) -> Zero123Guidance:
    """A prior with random weights, conditioned on two random frames."""
    networks = random_networks(options.prior, device, 0)
    if variant.channels_last:
        for network in (networks.unet, networks.vae):
            # Not `network.to`: diffusers narrows its arguments.
            nn.Module.to(network, memory_format=torch.channels_last)  # type: ignore[call-overload]
    config = GuidanceConfig(cuda_graphs=variant.graphs, implementation=variant.implementation)
    guidance = Zero123Guidance(networks, config, device)
    guidance.prepare(torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(0)))
    return guidance


def distillation_step(guidance: Zero123Guidance, side: int, views: int) -> Step:
    """A distillation step's evaluation of the prior."""
    generator = torch.Generator(guidance.device).manual_seed(0)
    like: dict[str, Any] = {"generator": generator, "device": guidance.device}
    images = torch.rand(LEVELS, views, 3, side, side, **like).requires_grad_()
    poses, frames = torch.randn(views, 4, **like), torch.zeros(views, dtype=torch.long, device=guidance.device)
    draws = draw(guidance, LEVELS, views, (200, 800), generator)
    return lambda: torch.autograd.grad(guidance.loss(images, poses, frames, draws, 5.0).sum(), images)[0]


def interpolation_step(interpolator: Interpolator, side: int, views: int, device: str) -> Step:
    """One step's consistency loss."""
    images = torch.rand(LEVELS, views, 3, side, side, generator=torch.Generator().manual_seed(0))
    images = images.to(device).requires_grad_()
    return lambda: torch.autograd.grad(consistency_loss(interpolator, images).sum(), images)[0]


class Meter:
    """Measures steps on one device."""

    def __init__(self, device: str, options: Options) -> None:
        self.cuda, self.options, self.timer = device == "cuda", options, PhaseTimer(device)

    def row(self, step: Step) -> tuple[Tensor, str]:
        """The step's gradient and its figures as cells of the table."""
        if self.cuda:
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        begin = time.perf_counter()
        gradient = step()
        self.timer.wait()
        first = time.perf_counter() - begin
        for _ in range(3):
            step()
        spent = median(self.timer.once(step) for _ in range(self.options.rounds))
        return gradient, f"{first:.1f} | {spent:.2f} | {self.memory()}"

    def memory(self) -> str:
        """Peak allocated, peak reserved, still reserved."""
        if not self.cuda:
            return "- | - | -"
        peaks = (torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved())
        torch.cuda.empty_cache()
        return " | ".join(f"{amount / 2**30:.2f}" for amount in (*peaks, torch.cuda.memory_reserved()))

    def list_kernels(self, step: Step) -> None:
        """Print the slowest kernels of a call."""
        if not self.options.kernels:
            return
        kind = torch.profiler.ProfilerActivity.CUDA if self.cuda else torch.profiler.ProfilerActivity.CPU
        with torch.profiler.profile(activities=[kind]) as profile:
            step()
            self.timer.wait()
        spent = [(e.self_device_time_total if self.cuda else e.self_cpu_time_total, e) for e in profile.key_averages()]
        for microseconds, event in sorted(spent, key=lambda pair: -pair[0])[: self.options.kernels]:
            print(f"      {microseconds / 1e3:8.3f} ms {event.count:5d} x {event.key[:110]}")


def report(meter: Meter, name: str, step: Step, expected: Tensor | None) -> Tensor:
    """Measure a step and print its row; returns its gradient."""
    gradient, figures = meter.row(step)
    assert torch.isfinite(gradient).all(), f"{name}: the gradient is not finite"
    error = 0.0 if expected is None else float((gradient - expected).norm() / expected.norm())
    print(f"| {name} | {figures} | {error:.1e} |", flush=True)
    meter.list_kernels(step)
    return gradient


def measure_prior(variant: Variant, meter: Meter, device: str, expected: dict[int, Tensor]) -> None:
    """Rows of one variant at all stages; gradients are compared with the first variant's, by side."""
    guidance = build(variant, meter.options, device)
    for side, views in STAGES:
        step = distillation_step(guidance, side, views)
        gradient = report(meter, f"Zero123 {side} x {views}, {variant.name}", step, expected.get(side))
        expected.setdefault(side, gradient)


def measure_interpolation(meter: Meter, device: str) -> None:
    """Rows of RIFE."""
    torch.manual_seed(0)
    net = IFNet("residual").to(device).requires_grad_(False)
    half = torch.float16 if meter.cuda else None
    for side, views in CLIPS:
        plain = interpolation_step(Interpolator(net, half=half), side, views, device)
        gradient = report(meter, f"RIFE {side} x {views}, eager", plain, None)
        recorded = interpolation_step(Interpolator(net, half=half, cuda_graphs=meter.cuda), side, views, device)
        report(meter, f"RIFE {side} x {views}, graphs", recorded, gradient)


def main(options: Options) -> None:
    """Measure and print."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = options.cudnn_benchmark
    meter = Meter(device, options)
    print(machine())
    print("| what | first call s | ms | peak allocated | peak reserved | still reserved | difference |")
    print(f"{'|---' * 7}|")
    measure_interpolation(meter, device)
    expected: dict[int, Tensor] = {}
    for variant in VARIANTS:
        if variant.implementation == "torch" or device == "cuda":
            measure_prior(variant, meter, device, expected)
            gc.collect()  # reference cycle: guidance and its graphs


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
