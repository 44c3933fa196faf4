"""Stage 3: train UNet, image encoder and camera projection.

    torchrun --nproc-per-node 2 -m training.denoiser VIEWS OUT --minutes 9

reads VIEWS/train-*.safetensors and OUT/vae, resumes from the checkpoint OUT/denoiser.pt if it exists, and updates it
periodically and at the end, when all steps are done or the minutes are over. OUT/denoiser.jsonl is the training curve.
Training may be split into slices, one per run. If time rather than `--steps` ends the training, pass `--finish` to the
last slice. `--compile-only` fills the compiler's cache and stops: run it while views are still being rendered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from jaxtyping import Float, Int64
from torch import Tensor

from consistent4d_ns.errors import show_input_errors_in_one_line
from consistent4d_ns.guidance.diffusion import TIMESTEPS, add_noise, alphas_cumprod
from consistent4d_ns.guidance.loading import load_networks
from consistent4d_ns.guidance.networks import Zero123Networks
from training import parallel
from training.networks import IMAGE_SIZE, LATENT, Denoiser, load_autoencoder, new_networks
from training.optimise import (
    SAVE_EVERY,
    Journal,
    Optimiser,
    learning_rate,
    on_device,
    prepare_for_speed,
    training_dtype,
)
from training.scenes import INPUT_VIEWS
from training.viewset import HELD_OUT, VIEWS, ViewSet, load_views, training_files

STATE = "denoiser.pt"
"""File name of the checkpoint."""

PEAK_RATE = 1e-3
WARM_UP = 500
COOL_DOWN = 0.35
"""Final fraction of the training over which the learning rate decays."""
TIMESTEP_EXPONENT = 0.7
"""Timesteps are 1000 u^0.7 with u uniform in [0, 1]: at two thirds of them, the input view determines the content."""
BINS = 50
"""Number of ranges of timesteps whose errors are tracked separately."""
UNCONDITIONAL = 0.1
"""Fraction of samples without condition, for classifier-free guidance."""
REPORT_EVERY = 250
"""Steps between two lines of the training curve."""


@dataclass(frozen=True)
class LatentViews:
    """Rendered scenes with the latents of all views."""

    views: ViewSet
    """Images and cameras."""
    mean: Float[Tensor, "scenes views c h w"]
    """Mean of the autoencoder's posterior, not scaled; float16."""
    std: Float[Tensor, "scenes views c h w"]
    """Its standard deviation."""
    scale: float
    """Factor applied to latents before diffusion."""


@dataclass(frozen=True)
class Batch:
    """Arguments of `Denoiser`, and the noise to be predicted."""

    noisy: Float[Tensor, "batch c h w"]
    timesteps: Int64[Tensor, " batch"]
    images: Float[Tensor, "batch 3 size size"]
    latents: Float[Tensor, "batch c h w"]
    poses: Float[Tensor, "batch 4"]
    keep: Float[Tensor, " batch"]
    noise: Float[Tensor, "batch c h w"]

    def to(self, dtype: torch.dtype) -> Batch:
        """The same in another precision."""
        values = {name: t.to(dtype) if t.is_floating_point() else t for name, t in vars(self).items()}
        return Batch(**values)


@torch.no_grad()
def encode(views: ViewSet, folder: Path) -> LatentViews:
    """Encode all views with the autoencoder in `folder`.

    Raises:
        InputError: the folder has no autoencoder.
    """
    vae: Any = load_autoencoder(folder)
    vae.to(views.images.device)
    chunks = views.images[:, :, :3].flatten(0, 1).split(4096)
    posteriors = torch.cat([vae.encode(images.float() / 127.5 - 1).latent_dist.parameters.half() for images in chunks])
    mean, logvar = posteriors.unflatten(0, views.images.shape[:2]).chunk(2, dim=2)
    return LatentViews(views, mean, torch.exp(0.5 * logvar.float()).half(), vae.config.scaling_factor)


def draw_batch(data: LatentViews, count: int, alphas: Float[Tensor, " timesteps"], generator: torch.Generator) -> Batch:
    """Random pairs of views of random scenes at random noise levels."""
    device = generator.device

    def randint(high: int) -> Int64[Tensor, " count"]:
        return torch.randint(high, (count,), generator=generator, device=device)

    scene, source = randint(len(data.views)), randint(INPUT_VIEWS)
    # Any view other than the input.
    target = (source + 1 + randint(data.mean.shape[1] - 1)) % data.mean.shape[1]
    noise, posterior = torch.randn(2, count, *LATENT, generator=generator, device=device)
    uniform = torch.rand(count, generator=generator, device=device)
    timesteps = (TIMESTEPS * uniform**TIMESTEP_EXPONENT).long().clamp_max(TIMESTEPS - 1)
    clean = data.scale * (data.mean[scene, target].float() + data.std[scene, target].float() * posterior)
    keep = torch.rand(count, generator=generator, device=device) >= UNCONDITIONAL
    return Batch(
        noisy=add_noise(clean, noise, alphas[timesteps]),
        timesteps=timesteps,
        images=data.views.images[scene, source, :3].float() / 255,
        latents=data.mean[scene, source].float(),
        poses=data.views.poses(scene, source, target),
        keep=keep.float(),
        noise=noise,
    )


def noise_errors(denoiser: Callable[..., Tensor], batch: Batch, dtype: torch.dtype) -> Float[Tensor, " batch"]:
    """Mean squared error of each sample's predicted noise."""
    inputs = batch.to(dtype)
    predicted = denoiser(inputs.noisy, inputs.timesteps, inputs.images, inputs.latents, inputs.poses, inputs.keep)
    return (predicted.float() - batch.noise).square().mean((1, 2, 3))


class Balance:
    """Gives all noise levels the same weight in the loss.

    At low noise levels the noise is hard to predict, and the input view hardly helps. At high levels it is easy to
    predict, except for the part that depends on the input view. Unweighted, the loss of low levels would be 300 times
    that of high ones.
    """

    def __init__(self, device: torch.device) -> None:
        self.errors = torch.ones(BINS, device=device)
        """Running mean of the error of each range of timesteps."""

    def loss(self, errors: Float[Tensor, " batch"], timesteps: Int64[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Mean of the errors, each divided by the running mean of its range of timesteps, which is then updated."""
        bins = timesteps * BINS // TIMESTEPS
        # Not `bincount`, which synchronises with the GPU.
        seen = torch.zeros_like(self.errors).index_add_(0, bins, torch.ones_like(errors))
        means = torch.zeros_like(self.errors).index_add_(0, bins, errors.detach()) / seen.clamp_min(1.0)
        self.errors = torch.where(seen > 0, torch.lerp(self.errors, means, 0.05), self.errors)
        return (errors / self.errors[bins]).mean()


def random_views(scenes: int, generator: torch.Generator) -> LatentViews:
    """Random latents and black images, for uses where only shapes matter."""
    device = generator.device
    images = torch.zeros(scenes, VIEWS, 4, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8, device=device)
    latents = torch.randn(scenes, VIEWS, *LATENT, generator=generator, device=device).half()
    return LatentViews(ViewSet(images, torch.zeros(3, scenes, VIEWS, device=device)), latents, latents.exp(), 1.0)


class Course:
    """State of the training that is kept between steps."""

    def __init__(self, networks: Zero123Networks, batch: int, compile: bool, device: torch.device) -> None:
        """
        Args:
            networks: Initial networks; the autoencoder is not used.
            batch: Samples per step and process.
            compile: Compile the network.
            device: Device to train on.
        """
        denoiser = on_device(Denoiser(networks), device)
        self.denoiser: Any = torch.compile(denoiser, dynamic=False) if compile else denoiser
        self.optimiser = Optimiser(denoiser, weight_decay=0.01, decay=0.9995, muon=True)
        self.batch = batch
        self.dtype = training_dtype(device)
        self.alphas = alphas_cumprod().to(device, torch.float32)
        self.generator = torch.Generator(device)
        self.balance = Balance(device)

    def step(self, data: LatentViews, rate: float) -> Float[Tensor, ""]:
        """Perform one training step; returns the norm of its gradient."""
        batch = draw_batch(data, self.batch, self.alphas, self.generator)
        self.balance.loss(noise_errors(self.denoiser, batch, self.dtype), batch.timesteps).backward()
        return self.optimiser.step(rate)

    def warm_up(self) -> None:
        """Run two steps on random data with learning rate 0, to fill the compiler's cache."""
        data = random_views(8, self.generator)
        for _ in range(2):
            self.step(data, 0.0)

    def evaluation_batch(self, data: LatentViews) -> Batch:
        """A random batch of held-out views, the same in every slice of the training."""
        return draw_batch(data, self.batch, self.alphas, torch.Generator(self.alphas.device).manual_seed(0))

    def errors(self, evaluation: Batch) -> dict[str, Tensor]:
        """Errors of the predicted noise in training and on the evaluation batch, in three ranges of timesteps."""
        # Gradients are unused, but under `no_grad` the network would be recompiled.
        errors = noise_errors(self.denoiser, evaluation, self.dtype).detach()
        figures = {}
        for i, level in enumerate(("low", "middle", "high")):
            inside = evaluation.timesteps * 3 // TIMESTEPS == i
            bins = slice(i * BINS // 3, (i + 1) * BINS // 3)
            figures |= {f"train_{level}": self.balance.errors[bins].mean(), f"held_out_{level}": errors[inside].mean()}
        return figures


@dataclass(frozen=True)
class Schedule:
    """Length of the training and of the current slice."""

    steps: int
    """Training steps of all slices together."""
    minutes: float
    """Length of this slice, compilation included."""
    finish: bool
    """Whether this is the last slice, even if it does not reach `steps`."""

    def rate(self, step: int, seconds: float) -> float:
        """Learning rate of a step that begins `seconds` after the start of the slice."""
        left = 1 - step / self.steps
        if self.finish:
            left = min(left, 1 - seconds / (60 * self.minutes))
        return learning_rate(step, PEAK_RATE, WARM_UP, left, COOL_DOWN)

    def over(self, step: int, seconds: float) -> bool:
        """Whether the slice is over before this step."""
        return step >= self.steps or seconds >= 60 * self.minutes


def train(course: Course, schedule: Schedule, data: LatentViews, held_out: LatentViews, out: Path, rank: int) -> None:
    """Train until all steps are done or the time is over; the first process writes checkpoint and curve to `out`."""
    optimiser, evaluation = course.optimiser, course.evaluation_batch(held_out)
    course.generator = parallel.generator(course.alphas.device, rank, optimiser.steps)
    journal = Journal(out / "denoiser.jsonl", rank == 0)
    # All processes use the same time, averaged over them periodically: their learning rates must not differ.
    seconds = 0.0
    while not schedule.over(optimiser.steps, seconds):
        norm = course.step(data, schedule.rate(optimiser.steps, seconds))
        if optimiser.steps % REPORT_EVERY == 0 or optimiser.steps == schedule.steps:
            samples = optimiser.steps * course.batch * parallel.processes()
            journal.write({"step": optimiser.steps, "samples": samples, "norm": norm} | course.errors(evaluation))
            seconds = parallel.mean(journal.seconds, course.alphas.device)
        if rank == 0 and optimiser.steps % SAVE_EVERY == 0:
            optimiser.save(out / STATE)
    if rank == 0:
        optimiser.save(out / STATE)


def main(
    views: Annotated[Path, tyro.conf.Positional],
    out: Annotated[Path, tyro.conf.Positional],
    /,
    steps: int = 30_000,
    minutes: float = 1e9,
    finish: bool = False,
    batch: int = 512,
    start_from: str | None = None,
    compile: bool = True,
    compile_only: bool = False,
) -> None:
    """Train the denoiser.

    Args:
        views: Folder of rendered views.
        out: Output folder; contains the autoencoder.
        steps: Training steps of all slices together.
        minutes: Length of this slice, compilation included.
        finish: This is the last slice: lower the learning rate to 0 by the end of its minutes.
        batch: Samples per step and process.
        start_from: An exported prior to start from if there is no checkpoint to resume; its autoencoder must be the
            one in OUT.
        compile: Compile the network.
        compile_only: Compile by running two steps on random data, then stop; reads and writes no files.
    """
    device, rank = parallel.start()
    prepare_for_speed()
    course = Course(load_networks(start_from) if start_from else new_networks(seed=0), batch, compile, device)
    if compile_only:
        course.warm_up()
    else:
        if (out / STATE).exists():
            course.optimiser.load(out / STATE)
        data = encode(load_views(training_files(views, rank, parallel.processes()), device), out / "vae")
        held_out = encode(load_views([views / HELD_OUT], device), out / "vae")
        train(course, Schedule(steps, minutes, finish), data, held_out, out, rank)
    parallel.finish()


if __name__ == "__main__":
    show_input_errors_in_one_line()
    tyro.cli(main)
