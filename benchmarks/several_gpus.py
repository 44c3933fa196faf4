"""Training on several GPUs compared with one: time per step, memory and quality.

    python -m benchmarks.several_gpus --data toy gt4d/Fox --out several_gpus.json --devices 1 2

All runs use Nerfstudio's own launcher, as `ns-train --machine.num-devices N` does, each in its own processes.
`speed` times steps at the beginning of every stage of a preset, with a Zero123 of random weights, on the first
sequence. `quality` trains consistent4d-mini on every sequence and evaluates unseen views like benchmarks.four_d:
with the same number of steps on several GPUs, which then see proportionally more views, and optionally with fewer.
The results file is updated after each run; a failed run is recorded there and does not stop the others.

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
from consistent4d_ns.errors import show_input_errors_in_one_line
from consistent4d_ns.guidance.random_prior import random_networks
from consistent4d_ns.method_configs import Consistent4DTrainerConfig, preset
from consistent4d_ns.model import OCCUPANCY_EVERY
from consistent4d_ns.pipeline import Consistent4DPipeline
from consistent4d_ns.schedules import Anneal

WARMUP = 24
"""Warm-up steps of each stage, not counted: they compile kernels and capture graphs."""
PATIENCE = timedelta(minutes=3)
"""How long a process waits for the others before the run fails."""


@dataclass
class Options:
    """Options of the benchmark."""

    data: tuple[Path, ...]
    """Sequences; `quality` needs ground truth."""
    out: Path
    """JSON file for the results."""
    what: tuple[Literal["speed", "quality"], ...] = ("speed", "quality")
    """What is measured."""
    devices: tuple[int, ...] = (1, 2)
    """Numbers of GPUs; the first is the baseline."""
    preset: str = "consistent4d"
    """Preset for `speed`."""
    prior: Literal["full", "small"] = "full"
    """Size of the random prior for `speed`."""
    steps: int = 150
    """Steps per stage that are timed."""
    length: float = 1.0
    """Steps of `quality` as a multiple of the preset's; schedules are scaled accordingly."""
    shorter: tuple[float, ...] = ()
    """Fractions of that length for additional runs on several GPUs: at 0.5 two GPUs see as many views as one does."""
    variant: str = "guidance+icl"
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
    """One training run: a configuration, the number of devices, and the function that uses its trainer."""

    sequence: str
    devices: int
    label: str
    """Column of the tables."""
    config: Consistent4DTrainerConfig
    work: Callable[[Trainer], dict[str, Any]]
    """Called on every device with a trainer that is set up; returns JSON-serialisable results."""


# Runs


def plan_runs(options: Options, folder: Path) -> Iterator[Run]:
    """All runs in order, writing below `folder`.

    Raises:
        InputError: an override names an unknown option.
    """
    if "speed" in options.what:
        work = partial(time_stages, prior=options.prior, steps=options.steps)
        for devices in options.devices:
            config = speed_config(options, folder)
            yield Run(options.data[0].resolve().name, devices, f"speed, {named(devices)}", config, work)
    if "quality" in options.what:
        for data, devices in product(options.data, options.devices):
            for part in (1.0, *(options.shorter if devices > 1 else ())):
                yield quality_run(options, data, devices, part, folder)


def quality_run(options: Options, data: Path, devices: int, part: float, folder: Path) -> Run:
    """Training for a fraction of the steps."""
    job = four_d.Job(str(data.resolve()), options.variant, options.assignments, "", options.device, None)
    config = four_d.configure(job, folder)
    stretch(config, options.length * part)
    return Run(job.sequence, devices, f"{named(devices)}, {config.max_num_iterations} steps", config, train_and_measure)


def named(devices: int) -> str:
    """Label of a number of devices."""
    return f"{devices} GPU{'s' if devices > 1 else ''}"


def speed_config(options: Options, folder: Path) -> Consistent4DTrainerConfig:
    """The preset without logs, and without a prior until `time_stages` gives it one."""
    config = preset(PRESETS[options.preset])
    config.data = config.pipeline.datamanager.data = options.data[0]
    config.machine.device_type, config.output_dir, config.vis = options.device, folder, "tensorboard"
    config.set_timestamp()
    config.logging.local_writer.enable = False
    for assignment in options.assignments:
        four_d.override(config, assignment)
    config.pipeline.guidance.kind = "none"
    return config


def stretch(config: Consistent4DTrainerConfig, factor: float) -> None:
    """Multiply the number of steps, and the steps at which anything changes."""
    plan, guidance = config.pipeline.datamanager.plan, config.pipeline.guidance
    weights = config.pipeline.model.loss_weights
    config.max_num_iterations = round(factor * config.max_num_iterations)
    plan.stage_steps = tuple(round(factor * step) for step in plan.stage_steps)
    guidance.min_noise, guidance.max_noise = (stretched(a, factor) for a in (guidance.min_noise, guidance.max_noise))
    weights.orientation = stretched(weights.orientation, factor)


def stretched(anneal: Anneal, factor: float) -> Anneal:
    """The same change over other steps."""
    return replace(anneal, begin_step=round(factor * anneal.begin_step), end_step=round(factor * anneal.end_step))


# One run


def perform(run: Run) -> list[dict[str, Any]]:
    """What the run's work returned on each of its devices."""
    config, kind_of_device = run.config, run.config.machine.device_type
    config.machine.num_devices = run.devices
    config.save_config()  # As ns-train does first: processes that all create the run's folder fail now and then.
    with tempfile.TemporaryDirectory() as folder:
        worker = partial(on_each, work=run.work, folder=Path(folder))
        if run.devices == 1:
            mp.spawn(worker, (1, config))  # pyright: ignore[reportPrivateImportUsage]
        elif kind_of_device == "cpu":
            gloo.launch(worker, run.devices, config)
        else:
            launch(worker, run.devices, config=config, timeout=PATIENCE, device_type=kind_of_device)
        return [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(run.devices)]


def on_each(
    local_rank: int,
    world_size: int,
    config: Consistent4DTrainerConfig,
    global_rank: int = 0,
    *,
    work: Callable[[Trainer], dict[str, Any]],
    folder: Path,
) -> None:
    """What each process does; as Nerfstudio's `train_loop`, but `work` instead of training."""
    with redirect_stdout(io.StringIO()):
        _set_random_seed(config.machine.seed + global_rank)
        trainer = config.setup(local_rank=local_rank, world_size=world_size)
        trainer.setup()
        result = work(trainer)
    (folder / f"{global_rank}.json").write_text(json.dumps(result | {"machine": machine()}))


def time_stages(trainer: Trainer, prior: Literal["full", "small"], steps: int) -> dict[str, Any]:
    """For every stage, milliseconds of the counted steps by their kind, and the GiB that torch held."""
    pipeline = cast(Consistent4DPipeline, trainer.pipeline)
    attach_prior(pipeline, random_networks(prior, trainer.device, 0))
    pipeline.train()
    plan = pipeline.datamanager.config.plan
    stages = [time_steps(trainer, begin, steps) for begin in plan.stage_steps]
    return {"stages": [{"image_size": size} | stage for size, stage in zip(plan.image_sizes, stages, strict=True)]}


def time_steps(trainer: Trainer, begin: int, count: int) -> dict[str, Any]:
    """Steps as Nerfstudio's loop takes them, from step `begin` on; nothing waits for them in between."""
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
    """Train, and in the first process measure the evaluation views."""
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
    """A row for every number of devices, stage and kind of step; ratios are relative to the first run's mean."""
    titles = ("GPUs", "pixels", "step", "median ms", "mean ms", "to the first", "samples per ray", "GiB of each GPU")
    rows, first = [titles, ("---",) * len(titles)], dict[tuple[int, str], float]()
    for result in results:
        for stages in zip(*(rank["stages"] for rank in result["ranks"]), strict=True):
            spent = stages[0]["ms"] | {"all": [ms for one in stages[0]["ms"].values() for ms in one]}
            memory = " ".join(f"{stage['peak_gib']:.1f}" for stage in stages)
            for name, ms in spent.items():
                size = stages[0]["image_size"]
                ratio = mean(ms) / first.setdefault((size, name), mean(ms))
                times = f"{median(ms):.1f}", f"{mean(ms):.1f}", f"{ratio:.3f}"
                samples = f"{mean(stage['samples_per_ray'] for stage in stages):.1f}"
                rows.append((str(result["devices"]), str(size), name, *times, samples, memory))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def tables(results: Sequence[dict[str, Any]]) -> str:
    """Tables of all runs that did not fail."""
    done = [result for result in results if "ranks" in result]
    timed = [result for result in done if "stages" in result["ranks"][0]]
    scored = [result | {"scores": result["ranks"][0]["scores"]} for result in done if result not in timed]
    return "\n\n".join(table(some) for table, some in ((speed_table, timed), (four_d.tables, scored)) if some)


def main(options: Options) -> None:
    """Do all runs, one after the other; print and write the results."""
    show_input_errors_in_one_line()
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for run in list(plan_runs(options, Path(folder))):
            begin = time.perf_counter()
            result = outcome(run)
            said, seconds = result.get("error", "done"), time.perf_counter() - begin
            print(f"{run.sequence}, {run.label}: {said}, {seconds:.0f} s", flush=True)
            results.append(result | {"seconds": seconds})
            options.out.write_text(json.dumps({"options": asdict(options), "runs": results}, default=str))
    print(tables(results))


def outcome(run: Run) -> dict[str, Any]:
    """The results of `perform` under "ranks", or the cause of its failure under "error"."""
    known = {"sequence": run.sequence, "devices": run.devices, "label": run.label}
    try:
        ranks = perform(run)
    except (mp.ProcessRaisedException, mp.ProcessExitedException) as error:
        return known | {"error": str(error)}
    return known | {"ranks": ranks}


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
