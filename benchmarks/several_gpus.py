"""Training on several GPUs against one: time per step, memory, and what comes out.

    python -m benchmarks.several_gpus speed --data DATA --out speed.json
    python -m benchmarks.several_gpus quality --data toy gt4d/Fox --out quality.json

Both go through Nerfstudio's own launcher, as `ns-train --machine.num-devices N` does. `speed` times the `consistent4d`
preset with a Zero123 of full size and random weights at each of its stages. `quality` trains `consistent4d-mini` on
sequences whose other views are known, for the same number of steps on one and on several GPUs; every GPU draws views
and times of its own, so several see more of them.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any, Literal, cast

import torch
import tyro
from nerfstudio.engine.callbacks import TrainingCallbackLocation
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from nerfstudio.scripts.train import launch

from benchmarks import four_d
from benchmarks.steps import PRESETS, PhaseTimer, attach_prior, full_size_networks, kind, machine, peak_memory
from consistent4d_ns.errors import show_input_errors_in_one_line
from consistent4d_ns.method_configs import Consistent4DTrainerConfig, preset
from consistent4d_ns.pipeline import Consistent4DPipeline

WARMUP = 24
"""Steps of each stage that are run but not counted: kernels are compiled in them and graphs recorded."""
BEFORE, AFTER = TrainingCallbackLocation.BEFORE_TRAIN_ITERATION, TrainingCallbackLocation.AFTER_TRAIN_ITERATION


@dataclass
class Options:
    """What is run."""

    what: tyro.conf.Positional[Literal["speed", "quality"]]
    """Time per step of `consistent4d`, or what comes out of `consistent4d-mini`."""
    data: tuple[Path, ...]
    """Frames to train on; for `quality` sequences with ground truth."""
    out: Path
    """Where the figures are written as JSON."""
    devices: tuple[int, ...] = (1, 2)
    """Numbers of GPUs."""
    steps: int = 150
    """Steps per stage that `speed` counts."""
    overrides: tuple[str, ...] = ()
    """Changes to the preset of `quality`: PATH=VALUE, as in benchmarks.four_d."""
    device: Literal["cuda", "cpu"] = "cuda" if torch.cuda.is_available() else "cpu"
    """Where it runs; the CPU, for trying this program out, is one device."""


def run(config: TrainerConfig, devices: int, work: Callable[[Trainer], Any]) -> Any:
    """What `work` returns on the first of so many devices; every one of them does it with a trainer that is set up."""
    config.machine.num_devices = devices
    config.set_timestamp()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        worker = partial(on_each, work=work, out=out)
        launch(worker, devices, config=config, device_type=cast(Any, config.machine.device_type))
        return json.loads(out.read_text())


def on_each(
    local_rank: int,
    world_size: int,
    config: TrainerConfig,
    global_rank: int = 0,
    *,
    work: Callable[[Trainer], Any],
    out: Path,
) -> None:
    """What one process does, as Nerfstudio's `train_loop`."""
    torch.manual_seed(config.machine.seed + global_rank)
    trainer = config.setup(local_rank=local_rank, world_size=world_size)
    trainer.setup()
    result = work(trainer)
    if global_rank == 0:
        out.write_text(json.dumps(result))


def speed_config(data: Path, folder: Path, device: Literal["cuda", "cpu"]) -> Consistent4DTrainerConfig:
    """The preset without logs, and without a prior until `time_stages` gives it one."""
    config = preset(PRESETS["consistent4d" if device == "cuda" else "consistent4d-mini"])
    config.data = config.pipeline.datamanager.data = data
    config.machine.device_type, config.output_dir, config.vis = device, folder, "tensorboard"
    config.logging.local_writer.enable = False
    config.pipeline.guidance.kind = "none"
    return config


def time_stages(trainer: Trainer, steps: int) -> list[dict[str, Any]]:
    """Milliseconds of steps by their kind, at the beginning of each stage, and GiB that torch held."""
    pipeline = cast(Consistent4DPipeline, trainer.pipeline)
    if trainer.device != "cpu":
        attach_prior(pipeline, full_size_networks(pipeline.device))
    trainer.callbacks = pipeline.get_training_callbacks(training_attributes(trainer))
    pipeline.train()
    plan, stages = pipeline.datamanager.config.plan, []
    for begin, size in zip(plan.stage_steps, plan.image_sizes):
        timer, kinds = PhaseTimer(trainer.device), dict[str, list[float]]()
        points = [timer.now()]
        for step in range(begin, begin + WARMUP + steps):
            one_step(trainer, step)
            points.append(timer.now())
        timer.wait()
        for step, (first, last) in enumerate(pairwise(points), begin):
            if step >= begin + WARMUP:
                kinds.setdefault(kind(pipeline, step), []).append(timer.between(first, last))
        stages.append({"image_size": size, "ms": kinds, "peak_gib": peak_memory()})
    return stages


def training_attributes(trainer: Trainer) -> Any:
    """What Nerfstudio makes callbacks from; without the trainer, so that no report is written."""
    from nerfstudio.engine.callbacks import TrainingCallbackAttributes

    return TrainingCallbackAttributes(trainer.optimizers, trainer.grad_scaler, trainer.pipeline, None)


def one_step(trainer: Trainer, step: int) -> None:
    """A step of Nerfstudio's training loop."""
    for callback in trainer.callbacks:
        callback.run_callback_at_location(step, location=BEFORE)
    trainer.train_iteration(step)
    for callback in trainer.callbacks:
        callback.run_callback_at_location(step, location=AFTER)


def measure_speed(options: Options) -> list[dict[str, Any]]:
    """Stages of all numbers of devices, with a table."""
    print("| GPUs | pixels | step | median ms | mean ms | over one GPU | peak GiB |\n|---|---|---|---|---|---|---|")
    results: list[dict[str, Any]] = []
    alone: dict[tuple[int, str], float] = {}
    for devices in options.devices:
        with tempfile.TemporaryDirectory() as folder:
            config = speed_config(options.data[0], Path(folder), options.device)
            stages = run(config, devices, partial(time_stages, steps=options.steps))
        for stage in stages:
            for name, spent in stage["ms"].items():
                ratio = mean(spent) / alone.setdefault((stage["image_size"], name), mean(spent))
                print(
                    f"| {devices} | {stage['image_size']} | {name} | {median(spent):.1f} | {mean(spent):.1f} "
                    f"| {ratio:.2f} | {stage['peak_gib']:.1f} |",
                    flush=True,
                )
        results.append({"devices": devices, "stages": stages})
    return results


def train_and_measure(trainer: Trainer) -> dict[str, float]:
    """Scores of the evaluation views after training, and its seconds."""
    pipeline = cast(Consistent4DPipeline, trainer.pipeline)
    times = four_d.train(trainer)
    if trainer.local_rank > 0:
        return times
    pipeline.eval()
    views, truth = four_d.true_clips(pipeline)
    rendered = four_d.render_clips(pipeline, [view.camera for view in views])
    scores = four_d.overall(four_d.measure(rendered, truth, None))
    return scores | {"input_psnr": four_d.input_psnr(pipeline)} | times


def measure_quality(options: Options) -> list[dict[str, Any]]:
    """Scores of all sequences and numbers of devices, with a table."""
    names = ("psnr", "ssim", "iou", "input_psnr", "train_seconds")
    print(f"| sequence | GPUs | {' | '.join(names)} |\n{'|---' * (2 + len(names))}|")
    results: list[dict[str, Any]] = []
    for data in options.data:
        for devices in options.devices:
            job = four_d.Job(str(data.resolve()), "guidance+icl", options.overrides, "", options.device, None)
            with tempfile.TemporaryDirectory() as folder:
                scores = run(four_d.configure(job, Path(folder)), devices, train_and_measure)
            cells = " | ".join(f"{scores[name]:.3f}" for name in names)
            print(f"| {job.sequence} | {devices} | {cells} |", flush=True)
            results.append({"sequence": job.sequence, "devices": devices, "scores": scores})
    return results


def main(options: Options) -> None:
    """Measure, print, write."""
    show_input_errors_in_one_line()
    begin = time.perf_counter()
    print(machine())
    results = measure_speed(options) if options.what == "speed" else measure_quality(options)
    print(f"\nin {time.perf_counter() - begin:.0f} s")
    options.out.write_text(json.dumps({"machine": machine(), "results": results}))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
