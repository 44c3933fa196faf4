"""From jobs to the processes that do them: the project's own commands, with their arguments and outputs."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from consistent4d_ns.batching.jobs import Export, Job, Options, option_words
from consistent4d_ns.batching.sources import READ, footage_read, frames_read, truth_read
from consistent4d_ns.batching.spelling import plainly
from consistent4d_ns.batching.steps import Input, Step, Work
from consistent4d_ns.data.stills import STILL_TYPES
from consistent4d_ns.errors import InputError
from consistent4d_ns.files.names import absolute
from consistent4d_ns.sweeping import planning
from consistent4d_ns.sweeping.assignments import value_of
from consistent4d_ns.trainer_config import Consistent4DTrainerConfig

COMMAND = "consistent4d_ns.cli.main"
"""Module of the command `consistent4d`."""
TRAINING = "consistent4d_ns.cli.train_job"
"""Module of the process of one training."""
FRAMES = "frames"
"""Folder of prepared frames in a job's folder."""
RUN = "run"
"""Name of the run: METHOD/run is its folder in a job's folder."""
METRICS = "metrics"
"""Folder of what `consistent4d eval` writes."""
TAKEN = ("gt", "pred", "run", "objects", "out", "overwrite", "review", "port")
"""Options of commands that the batch sets itself, or with which a command would wait for somebody."""
READING = ("masks", "path", "data")
"""Options of commands that name files to be read."""
REPLACE = ("--overwrite",)
"""How all commands are told to replace what they wrote."""
EXPORTS: dict[Export, tuple[tuple[str, ...], str]] = {
    "web": (("export", "web"), "page.html"),
    "mesh": (("export", "mesh"), "mesh.glb"),
    "points": (("export", "points"), "points"),
    "splats": (("export", "splats"), "splats"),
    "usd": (("export", "usd"), "object.usdc"),
    "usdz": (("export", "usd"), "object.usdz"),
    "video": (("render",), "video.mp4"),
}
"""The command of each export, and what it writes into the job's folder."""


def training_of(job: Job, folder: Path) -> planning.Job:
    """The training of a job whose folder this is."""
    assignments = tuple(f"{path}={_text(value)}" for path, value in job.options.items())
    frames = job.data if job.prepare is None else folder / FRAMES
    for assignment in assignments:
        if planning.is_own(planning.field_path(assignment.partition("=")[0])):
            raise InputError(f"{job.name}: options: {assignment} is set by the batch itself; leave it out.")
    return planning.Job(job.method, str(frames), str(folder.parent), RUN, assignments, folder.name)


def work_of(job: Job, out: Path, base: Path, attempts: int, overwrite: bool = False) -> Work:
    """What there is to do for a job.

    Args:
        job: The job.
        out: Folder of all jobs; absolute.
        base: Folder at which relative paths in options begin; absolute.
        attempts: How often a step is tried that dies.
        overwrite: Whether steps that were done with other options are done again.

    Raises:
        InputError: an option of its training is unknown or cannot have its value.
    """
    folder = out / job.name
    training = training_of(job, folder)
    try:
        total = training.config().max_num_iterations
        config = training.preset()
        plain = tuple(_plain_assignment(config, assignment) for assignment in training.assignments)
        training = dataclasses.replace(training, assignments=plain)
    except InputError as error:
        raise InputError(f"{job.name}: options: {error}") from error
    steps = tuple(_steps(job, folder, training, base))
    return Work(job.name, str(folder), str(base), steps, total, attempts, overwrite)


def _plain_assignment(config: Consistent4DTrainerConfig, assignment: str) -> str:
    """An assignment of a training, its values spelt plainly."""
    path, _, value = assignment.partition("=")

    def written(values: Sequence[str]) -> str:
        return f"{path}={' '.join(values)}"

    return written(plainly(value.split(), lambda values: value_of(config, written(values))))


def run_of(job: Job, out: Path) -> Path:
    """Folder of a job's run."""
    return out / job.name / job.method / RUN


def _steps(job: Job, folder: Path, training: planning.Job, base: Path) -> Iterator[Step]:
    """The steps of a job, in order."""
    run = run_of(job, folder.parent)
    if job.prepare is not None:
        words = ("prepare", str(job.data), str(folder / FRAMES))
        named = _named(job.prepare, base)
        inputs = [*footage_read(job.data), *map(Input, named.values())]
        yield _command("prepare", words, {**job.prepare, **named}, FRAMES, inputs, feeds=True)
    yield Step(
        "train",
        ("-m", TRAINING, json.dumps(dataclasses.asdict(training), ensure_ascii=False)),
        str(run.relative_to(folder)),
        feeds=True,
        again=("--resume",),
        anew=REPLACE,
        inputs=tuple(frames_read(Path(training.data))),
        kinds=STILL_TYPES,
    )
    if job.truth is not None:
        words = ("eval", "--gt", str(job.truth), "--run", str(run), "--objects", job.name)
        inputs = truth_read(job.truth, job.name)
        yield _command("evaluate", (*words, "--out", str(folder / METRICS)), job.evaluate, METRICS, inputs)
    for export, options in job.exports.items():
        command, output = EXPORTS[export]
        if not isinstance(options.get("format", ""), str):
            raise InputError(f"{job.name}: exports, {export}: format: give one value.")
        if "format" in options:
            output = _output_of(export, options["format"])
        named = _named(options, base)
        words = (*command, str(run), str(folder / output))
        yield _command(export, words, {**options, **named}, output, [Input(path) for path in named.values()])


def _named(options: Options, base: Path) -> dict[str, str]:
    """Options that name files and folders to be read, masks or a camera path, with absolute paths."""
    values = {name: value for name, value in options.items() if name in READING and isinstance(value, str) and value}
    paths = {name: base / os.path.expanduser(value) for name, value in values.items()}
    # Not Path.exists, for which a text may be too long.
    return {name: str(absolute(path)) for name, path in paths.items() if os.path.exists(path)}


def _output_of(export: Export, format: str | tuple[str, ...]) -> str:
    """What an export writes whose format is given: a folder of numbered files, or a video of that format."""
    return f"{export}.{format}" if export == "video" and format != "png" else export


def _command(
    name: str, words: tuple[str, ...], options: Options, output: str, inputs: Sequence[Input], feeds: bool = False
) -> Step:
    """A step that is a `consistent4d` command.

    Raises:
        InputError: an option is not for a job to be set.
    """
    if taken := [option for option in options if option in TAKEN]:
        raise InputError(f"{name}: {taken[0]} is set by the batch itself; leave it out.")
    arguments = ("-m", COMMAND, *words, *option_words(options))
    return Step(name, arguments, output, feeds, REPLACE, REPLACE, tuple(inputs), READ)


def _text(value: str | tuple[str, ...]) -> str:
    """A value as it follows an option of `ns-train`."""
    text = value if isinstance(value, str) else " ".join(value)
    return text.capitalize() if text.lower() in ("true", "false") else text
