"""4D quality: trains variants of consistent4d-mini on sequences with ground-truth novel views and evaluates them.

    python -m benchmarks.four_d --data toy gt4d/Fox gt4d/Trex --out four_d.json --jobs 4 --perceptual stlpips*.whl
    python -m benchmarks.four_d --data gt4d/Fox --variants preset --out scan.json \\
        --scan pipeline.guidance.scale=1,2,3,5 pipeline.model.loss_weights.sds=0.03,0.1 --set max_num_iterations=500

Run it in the root of the repository; the plugin need not be installed. A sequence is a folder with `input/`, `eval_*/`
and `meta.json`, as written by `consistent4d toy`. All evaluation views are rendered at all times, at the preset's frame
size (128 pixels), and compared with the ground truth without alignment. Every run is a separate process; a failed run
is recorded in the results and does not stop the others. The results file and, beside it, one contact sheet per sequence
are updated after each run; tables are printed at the end.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import mean, median
from typing import Annotated, Any, Literal, cast

import numpy as np
import torch
import tyro
from jaxtyping import Float, UInt8
from nerfstudio.engine.trainer import Trainer
from PIL import Image, ImageDraw
from torch import Tensor

from benchmarks import measures
from benchmarks.perceptual import PerceptualDistance, load_perceptual
from consistent4d_ns.cli.demo import mini_config
from consistent4d_ns.data.cameras import OrbitViews
from consistent4d_ns.data.dataparser import FrameSequence, View
from consistent4d_ns.data.images import composite_white
from consistent4d_ns.errors import InputError, show_input_errors_in_one_line
from consistent4d_ns.media.pictures import contact_sheet, render_image, to_bytes
from consistent4d_ns.method_configs import Consistent4DTrainerConfig
from consistent4d_ns.pipeline import Consistent4DPipeline
from consistent4d_ns.sweeping.assignments import assign
from consistent4d_ns.targets.config import round_at

STRIP_FRAMES = 6
"""Frames of one novel view on the contact sheet, evenly spread over time."""
HAZE_MARGIN = 4
"""Pixels around the true silhouette in which opacity does not count as haze."""
COLUMNS = {
    "psnr": ("PSNR (dB)", 2),
    "ssim": ("SSIM", 3),
    "foreground_psnr": ("PSNR of the foreground (dB)", 2),
    "iou": ("silhouette IoU", 3),
    "haze": ("haze (mean opacity in %, at least 5 pixels outside the true silhouette)", 2),
    "st_lpips": ("ST-LPIPS, AlexNet (less is better)", 4),
    "flicker": ("flicker (temporal change over that of the truth)", 2),
    "change": ("temporal change (1e-3)", 3),
    "true_change": ("temporal change of the truth (1e-3)", 3),
    "input_psnr": ("PSNR of the input view (dB)", 2),
    "train_seconds": ("training (s)", 0),
    "step_seconds": ("training, steps alone (s)", 1),
    "distillation_ms": ("distillation step, median (ms)", 1),
}
"""Title and decimals of each score in the tables."""


def without_guidance(config: Consistent4DTrainerConfig) -> None:
    """Fit the input view only."""
    config.pipeline.guidance.kind = config.pipeline.interpolation.kind = "none"


def without_prior(config: Consistent4DTrainerConfig) -> None:
    """Supervise novel views with the consistency loss alone."""
    config.pipeline.guidance.kind = "none"
    with_consistency(config)


def without_consistency(config: Consistent4DTrainerConfig) -> None:
    """Supervise novel views with the prior alone."""
    config.pipeline.interpolation.kind = "none"


def with_consistency(config: Consistent4DTrainerConfig) -> None:
    """Supervise novel views with the consistency loss too."""
    config.pipeline.interpolation.kind = "rife"


def as_set(config: Consistent4DTrainerConfig) -> None:
    """Keep the preset with the changes of `--set`."""


def one_level(config: Consistent4DTrainerConfig) -> None:
    """Keep the finest level of the cascade only."""
    model, weights = config.pipeline.model, config.pipeline.model.loss_weights
    model.grid_resolutions, model.channels = model.grid_resolutions[-1:], model.channels[-1:]
    for term in ("rgb", "mask", "sds", "consistency"):
        setattr(weights, term, getattr(weights, term)[-1:])


VARIANTS: dict[str, Callable[[Consistent4DTrainerConfig], None]] = {
    "preset": as_set,
    "none": without_guidance,
    "icl": without_prior,
    "guidance": without_consistency,
    "guidance+icl": with_consistency,
    "one-level": one_level,
}
"""Variants that can be compared; applied after `--set` and `--scan`."""


@dataclass
class Options:
    """Options of the benchmark."""

    data: tuple[Path, ...]
    """Sequences with ground truth."""
    out: Path
    """New JSON file for the results."""
    variants: tuple[str, ...] = ("none", "preset", "guidance+icl", "one-level")
    """Names out of preset, none (no prior, no consistency loss), icl (no prior, but the consistency loss), guidance (no
    consistency loss), guidance+icl (both) and one-level (the preset with its finest level only)."""
    overrides: Annotated[tuple[tuple[str, ...], ...], tyro.conf.arg(name="set"), tyro.conf.UseAppendAction] = ()
    """Changes to the preset for all variants: PATH=VALUE, with VALUE as after ns-train's option of that name
    ("pipeline.datamanager.plan.clip_views=4 4")."""
    scan: Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction] = ()
    """PATH=VALUE,VALUE,...: every variant with each of the values; several scans give all combinations."""
    jobs: int = 1
    """Concurrent runs; they share the CPU cores and the GPU, so times are comparable only with --jobs 1."""
    device: Literal["cuda", "cpu"] = "cuda" if torch.cuda.is_available() else "cpu"
    """Device type."""
    perceptual: Path | None = None
    """Weights of the perceptual distance, which is omitted without them: the wheel downloaded by
    `pip download --no-deps stlpips-pytorch==0.0.2`, or the alex_shift_tolerant.pth in it."""


@dataclass(frozen=True)
class Job:
    """One run; strings only, so that it can be passed on as JSON."""

    data: str
    """Folder of the sequence."""
    variant: str
    """Name in `VARIANTS`."""
    overrides: tuple[str, ...]
    """PATH=VALUE, in order."""
    label: str
    """The variant and the scanned values: the column of the tables."""
    device: str
    """cuda or cpu."""
    perceptual: str | None
    """File with the weights of the perceptual distance."""

    @property
    def sequence(self) -> str:
        """Name of the sequence: the row of the tables."""
        return Path(self.data).name


@dataclass(frozen=True)
class Clips:
    """What some views show at all times."""

    rgb: Float[Tensor, "views frames 3 size size"]
    """On white, in [0, 1]."""
    alpha: Float[Tensor, "views frames size size"]
    """Opacity in [0, 1]."""


# Planning the runs


def plan_jobs(options: Options) -> list[Job]:
    """All runs, validated as far as possible without data.

    Raises:
        InputError: an option is invalid.
    """
    check(options)
    fixed = tuple(assignment for group in options.overrides for assignment in group)
    scans = [scanned(argument) for group in options.scan for argument in group]
    perceptual = None if options.perceptual is None else str(options.perceptual.resolve())
    jobs = []
    for data, variant, chosen in product(options.data, options.variants, product(*scans)):
        label = " ".join((variant, *(short(assignment) for assignment in chosen)))
        jobs.append(Job(str(data.resolve()), variant, (*fixed, *chosen), label, options.device, perceptual))
    for job in jobs:
        configure(job, Path())
    return jobs


def check(options: Options) -> None:
    """Raises: InputError: names that do not exist or are not unique, or a results file that would be replaced."""
    for variant in options.variants:
        if variant not in VARIANTS:
            raise InputError(f"--variants {variant}: there is no such variant; choose from {', '.join(VARIANTS)}.")
    if len({data.resolve().name for data in options.data}) < len(options.data):
        raise InputError("--data names two folders of the same name; tables need names that differ.")
    if options.out.exists():
        raise InputError(f"--out {options.out} exists; name a new file.")
    if options.perceptual is not None:
        load_perceptual(options.perceptual)


def scanned(argument: str) -> list[str]:
    """The assignments PATH=VALUE of one scan PATH=VALUE,VALUE,..."""
    path, _, values = argument.partition("=")
    return [f"{path}={value}" for value in values.split(",")]


def short(assignment: str) -> str:
    """An assignment with the last two names of its path."""
    path, _, value = assignment.partition("=")
    return f"{'.'.join(path.split('.')[-2:])}={value}"


def configure(job: Job, folder: Path) -> Consistent4DTrainerConfig:
    """The mini preset for one run, which writes below `folder`, without logging or evaluation during training.

    Raises:
        InputError: an override names an unknown option or has an invalid value.
    """
    config = mini_config(Path(job.data), folder)
    config.machine.device_type = cast(Literal["cuda", "cpu"], job.device)
    config.steps_per_save = 0
    config.logging.local_writer.enable = False
    config.pipeline.model.render_normals = False
    for assignment in job.overrides:
        assign(config, assignment)
    VARIANTS[job.variant](config)
    return config


# One run


def run_one(folder: Path) -> None:
    """Run the job in `folder`/job.json; writes result.json and pictures.npz there."""
    show_input_errors_in_one_line()
    job = Job(**json.loads((folder / "job.json").read_text()))
    config = configure(job, folder / "run")
    pipeline, views, truth, rendered, times = trained(config)
    perceptual = None if job.perceptual is None else load_perceptual(Path(job.perceptual)).to(pipeline.device)
    views_scores = measure(rendered, truth, perceptual)
    scores = overall(views_scores) | {"input_psnr": input_psnr(pipeline)} | times
    names = [view.frames.source.name for view in views]
    strip = strip_view([view.camera for view in views], pipeline.datamanager.input_view)
    np.savez(folder / "pictures.npz", truth=pictures(truth.rgb, strip), rendered=pictures(rendered.rgb, strip))
    (folder / "result.json").write_text(json.dumps({"scores": scores, "views": names, "by_view": views_scores}))


def trained(
    config: Consistent4DTrainerConfig,
) -> tuple[Consistent4DPipeline, list[View], Clips, Clips, dict[str, float]]:
    """Train: the pipeline, its evaluation views, their truth, their renderings, and times as by `train`.

    Raises:
        InputError: the sequence has no evaluation views.
    """
    torch.manual_seed(config.machine.seed)
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    pipeline = cast(Consistent4DPipeline, trainer.pipeline)
    views, truth = true_clips(pipeline)
    times = train(trainer)
    pipeline.eval()
    return pipeline, views, truth, render_clips(pipeline, [view.camera for view in views]), times


def train(trainer: Trainer) -> dict[str, float]:
    """Train as `ns-train` does; total and step seconds and, with a prior, the median distillation step in ms."""
    spent: list[float] = []
    iteration, cuda = trainer.train_iteration, trainer.device.startswith("cuda")

    def timed(step: int) -> Any:
        begin = time.perf_counter()
        result = iteration(step)
        if cuda:
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - begin)
        return result

    trainer.train_iteration = timed
    begin = time.perf_counter()
    trainer.train()
    times = {"train_seconds": time.perf_counter() - begin, "step_seconds": sum(spent)}
    pipeline = cast(Consistent4DPipeline, trainer.pipeline)
    every, rounds = pipeline.datamanager.config.plan.reference_every, pipeline.target_rounds
    distilling = [seconds for step, seconds in enumerate(spent) if step % every and round_at(rounds, step) is None]
    if pipeline.guidance is not None and distilling:
        times["distillation_ms"] = 1e3 * median(distilling)
    return times


def true_clips(pipeline: Consistent4DPipeline) -> tuple[list[View], Clips]:
    """The evaluation views and their ground-truth frames.

    Raises:
        InputError: the sequence has none.
    """
    data = pipeline.datamanager
    views = cast(FrameSequence, data.dataparser).unseen_views
    if not views:
        raise InputError(f"{data.get_datapath()} has no evaluation views: it needs eval_*/ and meta.json.")
    rgba = data.eval_dataset.rgba.to(pipeline.device).float().unflatten(0, (len(views), -1))
    return views, Clips(composite_white(rgba), rgba[:, :, 3])


def render_clips(pipeline: Consistent4DPipeline, views: Sequence[OrbitViews]) -> Clips:
    """Render `views` at the times of all frames."""
    times = pipeline.datamanager.frame_times.times
    size = pipeline.datamanager.frames.shape[-1]
    outputs = [render_image(pipeline.model, view, t, size) for view in views for t in times]
    rgb = torch.stack([output["rgb"].movedim(-1, 0) for output in outputs]).clamp(0.0, 1.0)
    alpha = torch.stack([output["accumulation"][..., 0] for output in outputs])
    shape = (len(views), len(times))
    return Clips(rgb.unflatten(0, shape), alpha.unflatten(0, shape))


def input_psnr(pipeline: Consistent4DPipeline) -> float:
    """PSNR in dB of the input view, mean over its frames."""
    data = pipeline.datamanager
    rendered = render_clips(pipeline, [data.input_view])
    return float(measures.psnr(rendered.rgb[0], data.reference_images()).mean())


def measure(rendered: Clips, truth: Clips, perceptual: PerceptualDistance | None) -> dict[str, list[float]]:
    """Scores of each view, mean over its frames; pixels more than half opaque in truth or rendering are foreground.

    Temporal changes are mean squared differences of consecutive frames, in thousandths.
    """
    values = measure_images(rendered, truth, perceptual)
    inside = measures.silhouettes(truth.alpha.flatten(0, 1))
    values["haze"] = 100 * measures.opacity_outside(rendered.alpha.flatten(0, 1), inside, HAZE_MARGIN)
    means = {name: value.unflatten(0, (len(rendered.rgb), -1)).mean(dim=1) for name, value in values.items()}
    means["change"] = 1e3 * measures.temporal_change(rendered.rgb)
    means["true_change"] = 1e3 * measures.temporal_change(truth.rgb)
    return {name: value.tolist() for name, value in means.items()}


def measure_images(
    rendered: Clips, truth: Clips, perceptual: PerceptualDistance | None
) -> dict[str, Float[Tensor, " images"]]:
    """Scores of each image; pixels more than half opaque in truth or rendering are foreground."""
    images, true_images = rendered.rgb.flatten(0, 1), truth.rgb.flatten(0, 1)
    solid, inside = (measures.silhouettes(clips.alpha.flatten(0, 1)) for clips in (rendered, truth))
    values = {
        "psnr": measures.psnr(images, true_images),
        "ssim": measures.ssim(images, true_images),
        "foreground_psnr": measures.foreground_psnr(images, true_images, solid | inside),
        "iou": measures.overlap(solid, inside),
    }
    return values if perceptual is None else values | {"st_lpips": perceptual(images, true_images)}


def overall(by_view: dict[str, list[float]]) -> dict[str, float]:
    """Means of the scores over all views, and the flicker computed from them."""
    scores = {name: mean(values) for name, values in by_view.items()}
    return scores | {"flicker": scores["change"] / scores["true_change"]}


def strip_view(views: Sequence[OrbitViews], input_view: OrbitViews) -> int:
    """Index of the view that sees most of the back."""
    turns = [math.radians(float(view.azimuth[0] - input_view.azimuth[0])) for view in views]
    return min(range(len(turns)), key=lambda i: math.cos(turns[i]))


def pictures(rgb: Float[Tensor, "views frames 3 size size"], strip: int) -> UInt8[np.ndarray, "pictures size size 3"]:
    """A row of the contact sheet: every view at the middle frame, then view `strip` at times from first to last."""
    frames = rgb.shape[1]
    indices = torch.linspace(0, frames - 1, STRIP_FRAMES).round().long()
    chosen = torch.cat((rgb[:, frames // 2], rgb[strip, indices.to(rgb.device)]))
    return np.stack([to_bytes(image) for image in chosen.movedim(1, -1)])


# All runs


def run_all(options: Options) -> None:
    """Run all jobs, write results and contact sheets, print the tables."""
    jobs = plan_jobs(options)
    results: dict[Job, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as work, ThreadPoolExecutor(options.jobs) as pool:
        folders = {job: Path(work) / str(i) for i, job in enumerate(jobs)}
        futures = {pool.submit(run_in_process, job, folder, options.jobs): job for job, folder in folders.items()}
        for future in as_completed(futures):
            job, result = futures[future], future.result()
            results[job] = {"sequence": job.sequence, **asdict(job), **result}
            print(f"{len(results)}/{len(jobs)} {job.sequence}, {job.label}: {summary(result)}", flush=True)
            done = [results[job] for job in jobs if job in results]
            options.out.write_text(json.dumps(done, indent=1))
            write_sheet(options.out, [other for other in jobs if other.data == job.data], folders)
    print("\n" + tables([results[job] for job in jobs]))


def run_in_process(job: Job, folder: Path, jobs: int) -> dict[str, Any]:
    """Do one job in a process of its own; its result, or under "error" the last lines of its output."""
    folder.mkdir()
    (folder / "job.json").write_text(json.dumps(asdict(job)))
    threads = {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // jobs)), "OMP_WAIT_POLICY": "PASSIVE"}
    with (folder / "log.txt").open("w") as log:
        command = [sys.executable, "-m", "benchmarks.four_d", "--one", str(folder)]
        root = Path(__file__).parent.parent
        done = subprocess.run(command, cwd=root, env=os.environ | threads, stdout=log, stderr=log)
    if done.returncode:
        lines = (folder / "log.txt").read_text(errors="replace").strip().splitlines()
        return {"error": [f"exit code {done.returncode}", *lines[-20:]]}
    return json.loads((folder / "result.json").read_text())


def summary(result: dict[str, Any]) -> str:
    """One run in a line."""
    if "error" in result:
        return "failed, " + result["error"][0] + ": " + result["error"][-1]
    scores = result["scores"]
    return f"{scores['psnr']:.2f} dB, IoU {scores['iou']:.3f}, trained for {scores['train_seconds']:.0f} s"


def tables(results: Sequence[dict[str, Any]]) -> str:
    """A Markdown table for each score that any run has: a row per sequence and one for their mean."""
    present = {name for result in results for name in result.get("scores", {})}
    return "\n\n".join(table(results, name) for name in COLUMNS if name in present)


def table(results: Sequence[dict[str, Any]], name: str) -> str:
    """The table of one score; missing scores, and means over them, are shown as a dash."""
    title, decimals = COLUMNS[name]
    values = {(result["sequence"], result["label"]): result.get("scores", {}).get(name) for result in results}
    sequences, labels = (list(dict.fromkeys(key[i] for key in values)) for i in range(2))

    def cell(numbers: Sequence[float | None]) -> str:
        known = [number for number in numbers if number is not None]
        return f"{mean(known):.{decimals}f}" if len(known) == len(numbers) else "-"

    rows = [[title, *labels], ["---"] * (1 + len(labels))]
    rows += [[one, *(cell([values.get((one, label))]) for label in labels)] for one in sequences]
    rows.append(["mean", *(cell([values.get((one, label)) for one in sequences]) for label in labels)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def write_sheet(out: Path, jobs: Sequence[Job], folders: dict[Job, Path]) -> None:
    """The contact sheet of one sequence beside `out`: a row of `pictures` for the truth and for each finished job."""
    rows = []
    for job in jobs:
        path = folders[job] / "pictures.npz"
        if (folders[job] / "result.json").exists():
            with np.load(path) as stored:
                rows = rows or [[written("truth", len(stored["truth"][0])), *stored["truth"]]]
                rows.append([written(job.label, len(stored["rendered"][0])), *stored["rendered"]])
    if rows:
        Image.fromarray(contact_sheet(rows)).save(out.with_name(f"{out.stem}_{jobs[0].sequence}.png"))


def written(text: str, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The words of a text, one per line, on a white square."""
    image = Image.new("RGB", (size, size), "white")
    ImageDraw.Draw(image).multiline_text((2, 2), text.replace(" ", "\n"), fill="black")
    return np.asarray(image)


def main() -> None:
    """One run, when called by another process of this script, or all of them."""
    if sys.argv[1:2] == ["--one"]:
        run_one(Path(sys.argv[2]))
        return
    show_input_errors_in_one_line()
    run_all(tyro.cli(Options, description=__doc__))


if __name__ == "__main__":
    main()
