"""Training on several GPUs compared with a single one: time per step, memory and quality.

    python -m benchmarks.several_gpus --data toy gt4d/Fox --out several_gpus.json --devices 1 2

Every run uses Nerfstudio's launcher, as `ns-train --machine.num-devices N` does, and has its own processes. `speed`
times steps at the beginning of every stage of a preset, with a Zero123 of random weights, on the first sequence.
`quality` trains consistent4d-mini on every sequence and evaluates unseen views like benchmarks.four_d: with the same
number of steps on several GPUs, which then process proportionally more views, and optionally with fewer. The results
file is updated after each run; a failed run is recorded there and does not stop the others.

Without GPUs, `--device cpu --preset consistent4d-mini --prior small --steps 2` tests everything over gloo.
"""

from __future__ import annotations

import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean, median
from typing import Annotated, Any, Literal, cast

import torch
import torch.multiprocessing as mp
import tyro
from nerfstudio.engine.trainer import Trainer
from nerfstudio.scripts.train import _set_random_seed, launch

from benchmarks import four_d, gloo
from benchmarks.steps import PRESETS, PhaseTimer, attach_prior, kind, machine, peak_memory, reset_peak_memory
from consistent4d_ns.errors import InputError, show_input_errors_in_one_line
from consistent4d_ns.guidance.random_prior import random_networks
from consistent4d_ns.method_configs import Consistent4DTrainerConfig, preset
from consistent4d_ns.model import OCCUPANCY_EVERY
from consistent4d_ns.pipeline import Consistent4DPipeline
from consistent4d_ns.schedules import Anneal
from consistent4d_ns.sweeping.assignments import assign

WARMUP = 24
"""Warm-up steps of each stage, not timed: they compile kernels and capture graphs."""
TIMEOUT = timedelta(minutes=3)
"""Time for which a process waits for the others before the run fails."""


@dataclass
class Options:
    """Options of the benchmark."""

    data: tuple[Path, ...]
    """Sequences; `quality` needs ground truth."""
    out: Path
    """JSON file for the results."""
    what: tuple[Literal["speed", "quality"], ...] = ("speed", "quality")
    """What to measure."""
    devices: tuple[int, ...] = (1, 2)
    """Numbers of GPUs; the first is the baseline."""
    preset: str = "consistent4d"
    """Preset for `speed`."""
    prior: Literal["full", "small"] = "full"
    """Size of the random prior for `speed`."""
    steps: int = 150
    """Timed steps per stage."""
    length: float = 1.0
    """Steps of `quality` as a multiple of the preset's; schedules are scaled accordingly."""
    shorter: tuple[float, ...] = ()
    """Fractions of that length for additional runs on several GPUs: at 0.5, two GPUs process as many views as one."""
    variant: str = "preset"
    """Variant of benchmarks.four_d that `quality` trains."""
    overrides: Annotated[tuple[tuple[str, ...], ...], tyro.conf.arg(name="set"), tyro.conf.UseAppendAction] = ()
    """Changes to both presets: PATH=VALUE, as in benchmarks.four_d."""
    device: Literal["cuda", "cpu"] = "cuda" if torch.cuda.is_available() else "cpu"
    """Device type."""

    @property
    def assignments(self) -> tuple[str, ...]:
        """All changes, in order."""
        return tuple(assignment for group in self.overrides for assignment in group)


@dataclass(frozen=True)
class Run:
    """One training run: a configuration, the number of devices, and the function to call with its trainer."""

    sequence: str
    devices: int
    label: str
    """Column of the tables."""
    config: Consistent4DTrainerConfig
    work: Callable[[Trainer], dict[str, Any]]
    """Called in the process of every device with its trainer, which is set up; returns JSON-serialisable results."""


# Runs


def plan_runs(options: Options, folder: Path) -> Iterator[Run]:
    """All runs in order; they write below `folder`.

    Raises:
        InputError: an override names an unknown option.
    """
    if "speed" in options.what:
        work = partial(time_stages, prior=options.prior, steps=options.steps)
        for devices in options.devices:
            config = speed_config(options, folder)
            yield Run(options.data[0].resolve().name, devices, f"speed, {gpu_label(devices)}", config, work)
    if "quality" in options.what:
        for data, devices in product(options.data, options.devices):
            for fraction in (1.0, *(options.shorter if devices > 1 else ())):
                yield quality_run(options, data, devices, fraction, folder)


def quality_run(options: Options, data: Path, devices: int, fraction: float, folder: Path) -> Run:
    """A training run with a fraction of the steps, followed by its evaluation."""
    job = four_d.Job(str(data.resolve()), options.variant, options.assignments, "", options.device, None)
    config = four_d.configure(job, folder)
    scale_steps(config, options.length * fraction)
    label = f"{gpu_label(devices)}, {config.max_num_iterations} steps"
    return Run(job.sequence, devices, label, config, train_and_measure)


def gpu_label(devices: int) -> str:
    """Label of a number of devices."""
    return f"{devices} GPU{'s' if devices > 1 else ''}"


def speed_config(options: Options, folder: Path) -> Consistent4DTrainerConfig:
    """The preset without logs and without a prior; `time_stages` attaches one."""
    config = preset(PRESETS[options.preset])
    config.data = config.pipeline.datamanager.data = options.data[0]
    config.machine.device_type, config.output_dir, config.vis = options.device, folder, "tensorboard"
    config.set_timestamp()
    config.logging.local_writer.enable = False
    for assignment in options.assignments:
        assign(config, assignment)
    config.pipeline.guidance.kind = "none"
    return config


def scale_steps(config: Consistent4DTrainerConfig, factor: float) -> None:
    """Multiply the number of steps, the stages and the steps of all schedules by a factor."""
    plan, guidance = config.pipeline.datamanager.plan, config.pipeline.guidance
    for stage in (config.pipeline.targets.imagine, config.pipeline.targets.hold):
        stage.begin_step, stage.steps = round(factor * stage.begin_step), round(factor * stage.steps)
    weights = config.pipeline.model.loss_weights
    config.max_num_iterations = round(factor * config.max_num_iterations)
    plan.stage_steps = tuple(round(factor * step) for step in plan.stage_steps)
    guidance.min_noise, guidance.max_noise = (scaled(a, factor) for a in (guidance.min_noise, guidance.max_noise))
    weights.orientation = scaled(weights.orientation, factor)


def scaled(anneal: Anneal, factor: float) -> Anneal:
    """The schedule with its first and last step multiplied by a factor."""
    return replace(anneal, begin_step=round(factor * anneal.begin_step), end_step=round(factor * anneal.end_step))


# One run


def perform(run: Run) -> list[dict[str, Any]]:
    """Do a run in new processes; returns the result of `run.work` of each device."""
    config, device_type = run.config, run.config.machine.device_type
    config.machine.num_devices = run.devices
    config.claim_folder()  # As ns-train does first: processes that all create the run's folder fail now and then.
    with tempfile.TemporaryDirectory() as folder:
        worker = partial(run_process, work=run.work, folder=Path(folder))
        if run.devices == 1:
            mp.spawn(worker, (1, config))  # pyright: ignore[reportPrivateImportUsage]
        elif device_type == "cpu":
            gloo.launch(worker, run.devices, config)
        else:
            launch(worker, run.devices, config=config, timeout=TIMEOUT, device_type=device_type)
        return [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(run.devices)]


def run_process(
    local_rank: int,
    world_size: int,
    config: Consistent4DTrainerConfig,
    global_rank: int = 0,
    *,
    work: Callable[[Trainer], dict[str, Any]],
    folder: Path,
) -> None:
    """Entry point of each process: like Nerfstudio's `train_loop`, but calls `work` instead of training."""
    with redirect_stdout(io.StringIO()):
        _set_random_seed(config.machine.seed + global_rank)
        trainer = config.setup(local_rank=local_rank, world_size=world_size)
        trainer.setup()
        result = work(trainer)
    (folder / f"{global_rank}.json").write_text(json.dumps(result | {"machine": machine()}))


def time_stages(trainer: Trainer, prior: Literal["full", "small"], steps: int) -> dict[str, Any]:
    """For every stage, the times of the timed steps in ms by kind of step, samples per ray, and peak memory in GiB."""
    pipeline = cast(Consistent4DPipeline, trainer.pipeline)
    attach_prior(pipeline, random_networks(prior, trainer.device, 0))
    pipeline.train()
    plan = pipeline.datamanager.config.plan
    stages = [time_steps(trainer, begin, steps) for begin in plan.stage_steps]
    return {"stages": [{"image_size": size} | stage for size, stage in zip(plan.image_sizes, stages, strict=True)]}


def time_steps(trainer: Trainer, begin: int, count: int) -> dict[str, Any]:
    """Time steps as in Nerfstudio's training loop, from step `begin` on, without synchronising between them."""
    pipeline, timer = cast(Consistent4DPipeline, trainer.pipeline), PhaseTimer(trainer.device)
    reset_peak_memory()
    points, kinds, samples = [], dict[str, list[float]](), []
    for step in range(begin, begin + WARMUP + count):
        points.append(timer.now())
        if step % OCCUPANCY_EVERY == 0:
            pipeline.model.update_occupancy(step)
        _, _, figures = trainer.train_iteration(step)
        samples.append(float(figures["samples_per_ray"]))
    points.append(timer.now())
    timer.wait()
    for step in range(WARMUP, WARMUP + count):
        spent = timer.between(points[step], points[step + 1])
        kinds.setdefault(kind(pipeline, begin + step), []).append(spent)
    return {"ms": kinds, "samples_per_ray": mean(samples[WARMUP:]), "peak_gib": peak_memory()}


def train_and_measure(trainer: Trainer) -> dict[str, Any]:
    """Train and, in the first process, evaluate the evaluation views."""
    pipeline, times = cast(Consistent4DPipeline, trainer.pipeline), four_d.train(trainer)
    if trainer.local_rank > 0:
        return {"scores": times}
    pipeline.eval()
    views, truth = four_d.true_clips(pipeline)
    rendered = four_d.render_clips(pipeline, [view.camera for view in views])
    scores = four_d.overall(four_d.measure(rendered, truth, None))
    return {"scores": scores | {"input_psnr": four_d.input_psnr(pipeline)} | times}


# Results


def speed_table(results: Sequence[dict[str, Any]]) -> str:
    """A row for every number of devices, stage and kind of step; ratios are relative to the mean of the first run."""
    titles = ("GPUs", "pixels", "step", "median ms", "mean ms", "ratio", "samples per ray", "GiB per GPU")
    rows, first = [titles, ("---",) * len(titles)], dict[tuple[int, str], float]()
    for result in results:
        for stages in zip(*(rank["stages"] for rank in result["ranks"]), strict=True):
            spent = stages[0]["ms"] | {"all": [ms for times in stages[0]["ms"].values() for ms in times]}
            memory = " ".join(f"{stage['peak_gib']:.1f}" for stage in stages)
            for name, ms in spent.items():
                size = stages[0]["image_size"]
                ratio = mean(ms) / first.setdefault((size, name), mean(ms))
                times = f"{median(ms):.1f}", f"{mean(ms):.1f}", f"{ratio:.3f}"
                samples = f"{mean(stage['samples_per_ray'] for stage in stages):.1f}"
                rows.append((str(result["devices"]), str(size), name, *times, samples, memory))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def tables(results: Sequence[dict[str, Any]]) -> str:
    """Tables of all successful runs."""
    successful = [result for result in results if "ranks" in result]
    timed = [result for result in successful if "stages" in result["ranks"][0]]
    scored = [result | {"scores": result["ranks"][0]["scores"]} for result in successful if result not in timed]
    return "\n\n".join(table(runs) for table, runs in ((speed_table, timed), (four_d.tables, scored)) if runs)


def main(options: Options) -> None:
    """Do all runs, one after the other; print and write the results."""
    show_input_errors_in_one_line()
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for run in list(plan_runs(options, Path(folder))):
            begin = time.perf_counter()
            result = outcome(run)
            status, seconds = result.get("error", "done"), time.perf_counter() - begin
            print(f"{run.sequence}, {run.label}: {status}, {seconds:.0f} s", flush=True)
            results.append(result | {"seconds": seconds})
            options.out.write_text(json.dumps({"options": asdict(options), "runs": results}, default=str))
    print(tables(results))


def outcome(run: Run) -> dict[str, Any]:
    """Do a run; returns the results of `perform` under "ranks", or the error message under "error"."""
    description = {"sequence": run.sequence, "devices": run.devices, "label": run.label}
    try:
        ranks = perform(run)
    except (InputError, mp.ProcessRaisedException, mp.ProcessExitedException) as error:
        return description | {"error": str(error)}
    return description | {"ranks": ranks}


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
