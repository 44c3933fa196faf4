"""`consistent4d sweep`: a training for every seed and every value, and a page that compares them."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from consistent4d_ns.cli import train_job
from consistent4d_ns.cli.compare import write_page
from consistent4d_ns.cli.help_texts import NO_DEFAULT
from consistent4d_ns.cli.progress import Fifths, announce, say
from consistent4d_ns.comparing.options import CompareOptions
from consistent4d_ns.errors import FAILED, InputError
from consistent4d_ns.files.names import expanded
from consistent4d_ns.sweeping.methods import Method

if TYPE_CHECKING:
    from consistent4d_ns.sweeping.planning import Job
    from consistent4d_ns.sweeping.processes import Done, Place, Task

PAGE = "sweep.html"
"""The page beside the runs' folders."""
AUTHOR = "sweep"
"""Which subcommand has written a page; others are not replaced."""


def sweep(
    method: Annotated[Method, tyro.conf.Positional],
    /,
    data: Path,
    options: Annotated[CompareOptions, tyro.conf.arg(name="")],
    out: Path = Path("outputs"),
    seeds: Annotated[tuple[int, ...], NO_DEFAULT] = (),
    settings: Annotated[tuple[tuple[str, ...], ...], tyro.conf.arg(name="set"), tyro.conf.UseAppendAction] = (),
    devices: Annotated[tuple[int, ...], NO_DEFAULT] = (),
    overwrite: bool = False,
) -> None:
    """Train a method once for every seed and every combination of values, and compare the runs on one page.

    Runs that are finished already are not trained again, so that a sweep can be repeated after Ctrl-C or a failure, or
    with further values; unfinished ones begin anew. A run that fails stops no other. The page is sweep.html in the
    folder that the runs' folders are in.

    Args:
        method: What to train.
        data: Frames to train on, a folder of RGBA frames or an animated file with alpha.
        options: What the page shows.
        out: Folder for the runs: OUT/DATA/METHOD/NAME, as of ns-train, with a name in place of the time.
        seeds: Seeds: 0 1 2; default: that of ns-train.
        settings: Values of an option of ns-train, PATH=VALUE,VALUE: pipeline.guidance.scale=1,1.5. A single value is
            set in every run.
        devices: Numbers of GPUs that train one run at a time each; default: one run after the other.
        overwrite: Train finished runs again, and those in the way that have other options.
    """
    data = expanded(data)
    if not data.exists():
        raise InputError(f"{data} does not exist: give --data a folder of RGBA frames or an animated file with alpha.")
    announce("Loading PyTorch and Nerfstudio")
    from consistent4d_ns.comparing.film import check_options
    from consistent4d_ns.sweeping.planning import is_finished, plan

    check_options(options)
    places = places_of(devices)
    jobs = plan(method, data, expanded(out), seeds, [setting for group in settings for setting in group])
    page = folder_of(jobs[0]).parent / PAGE
    check_page(page, AUTHOR)
    check_data(jobs[0])
    due = [job for job in jobs if not is_finished(job.config(), overwrite)]
    announce(f"{len(jobs)} runs in {page.parent}, {len(jobs) - len(due)} of them finished; training {len(due)}")
    failures = train_all(due, places)
    report(page, jobs, failures, options)
    if failures:
        raise SystemExit(FAILED)


def places_of(devices: Sequence[int]) -> list[Place]:
    """Where trainings run: on each of these GPUs, or anywhere.

    Raises:
        InputError: there is no such GPU, or one is named twice.
    """
    import torch

    from consistent4d_ns.sweeping.processes import Place

    if not devices:
        return [Place("", {})]
    if len(set(devices)) < len(devices):
        raise InputError(f"--devices {' '.join(map(str, devices))} names a GPU twice: name each once.")
    count = torch.cuda.device_count()
    if wrong := [device for device in devices if not 0 <= device < count]:
        known = f"its GPUs are 0 to {count - 1}" if count else "PyTorch finds no GPU on it; leave out --devices"
        raise InputError(f"--devices {wrong[0]}: this machine has no such GPU, {known}.")
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    names = visible or [str(device) for device in range(count)]
    return [Place(f"GPU {device}", {"CUDA_VISIBLE_DEVICES": names[device]}) for device in devices]


def folder_of(job: Job) -> Path:
    """The folder of a run."""
    return job.config().get_base_dir()


def check_page(page: Path, author: str) -> None:
    """Raises: InputError: something is in the place of a page that this subcommand has not written."""
    from consistent4d_ns.comparing.page import is_page

    if not page.exists():
        return
    if page.is_file() and is_page(page.read_text(encoding="utf-8", errors="replace"), author):
        return
    raise InputError(f"{page} is not a page of an earlier {author}: move it away, or give another --out.")


def check_data(job: Job) -> None:
    """Raises: InputError: the frames cannot be listed, so that no run could be trained."""
    parser = job.config().pipeline.datamanager.dataparser
    parser.data = Path(job.data)
    parser.setup().get_dataparser_outputs("train")


def train_all(jobs: Sequence[Job], places: Sequence[Place]) -> dict[str, str]:
    """Train jobs; returns why some failed, by their names. A line on standard error tells of everything."""
    from consistent4d_ns.sweeping.processes import run_all

    tasks = {job.name: task_of(job) for job in jobs}
    totals = {job.name: job.config().max_num_iterations for job in jobs}
    progress = Progress({job.name: folder_of(job) for job in jobs}, totals)
    failures: dict[str, str] = {}
    with closing(run_all(list(tasks.values()), places, progress.began)) as events:
        try:
            for event in events:
                if event is None:
                    progress.look()
                else:
                    _note(event, progress, failures)
        except KeyboardInterrupt:
            say("Stopping what is being trained; Ctrl-C again ends it at once. Repeat the command to go on.")
            raise
    return failures


def _note(done: Done, progress: Progress, failures: dict[str, str]) -> None:
    """Tell that a training has ended, and keep why it failed, if it did."""
    from consistent4d_ns.sweeping.processes import failure

    name = done.task.name
    progress.ended(name)
    if done.code:
        failures[name] = failure(done.task.log, done.code)
        say(f"{name}: failed, {failures[name]}; all it said is in {done.task.log}")
    else:
        say(f"{name}: finished in {done.seconds / 60:.1f} min")


def task_of(job: Job) -> Task:
    """The process that trains a job; its output goes to a file beside the run's folder."""
    from consistent4d_ns.sweeping.processes import Task

    folder = folder_of(job)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Whatever is in its folder is a run of this sweep, or may be overwritten: that has been checked.
    command = [sys.executable, "-m", train_job.__name__, json.dumps(dataclasses.asdict(job)), "--overwrite"]
    return Task(job.name, command, folder.with_name(f"{job.name}.log"))


class Progress:
    """Tells how far trainings are."""

    def __init__(self, folders: dict[str, Path], totals: dict[str, int]) -> None:
        """
        Args:
            folders: Folders of runs by name.
            totals: Their numbers of training steps.
        """
        self._folders = folders
        self._fifths = {name: Fifths(folders[name], total) for name, total in totals.items()}
        self._running: set[str] = set()

    def began(self, task: Task, place: Place) -> None:
        """A training begins."""
        number = list(self._folders).index(task.name) + 1
        where = f" on {place.name}" if place.name else ""
        say(f"{task.name}: training{where}, {number} of {len(self._folders)}")
        self._running.add(task.name)

    def ended(self, name: str) -> None:
        """A training has ended."""
        self._running.discard(name)

    def look(self) -> None:
        """Tell of every fifth that is done."""
        for name in self._running:
            if step := self._fifths[name].news():
                say(f"{name}: {step}")


def report(page: Path, jobs: Sequence[Job], failures: dict[str, str], options: CompareOptions) -> None:
    """Write the page of all runs that are finished, and print where it is and what failed."""
    from consistent4d_ns.comparing.looking import read_runs

    names = [job.name for job in jobs if job.name not in failures]
    configs = read_runs([folder_of(job) for job in jobs if job.name in names])
    finished = dict(zip(names, configs, strict=True))
    notices = [f"{name} failed: {reason}." for name, reason in failures.items()]
    if failures:
        names = ", ".join(failures)
        say(f"{len(failures)} of {len(jobs)} runs failed: {names}. Repeat the command to train them again.")
    if not finished:
        return
    count = f"{len(finished)} {'run' if len(finished) == 1 else 'runs'}"
    title = f"{jobs[0].method} on {Path(jobs[0].data).name}: {count}"
    write_page(page, title, finished, options, notices, AUTHOR, overwrite=True)
    print(page)
