"""Which trainings a sweep consists of: a grid of values, a name and a folder for each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from consistent4d_ns.comparing.differences import differences, short_names
from consistent4d_ns.errors import InputError
from consistent4d_ns.files.checkpoints import is_last, newest_whole, step_of
from consistent4d_ns.files.config_files import config_file
from consistent4d_ns.files.names import absolute
from consistent4d_ns.method_configs import PRESETS, preset
from consistent4d_ns.runs import read_config
from consistent4d_ns.sweeping.assignments import assign, field_path
from consistent4d_ns.trainer_config import Consistent4DTrainerConfig

SEED = "machine.seed"
"""The option that `--seeds` sets."""
OWN = (
    "data",
    "output_dir",
    "experiment_name",
    "method_name",
    "timestamp",
    "relative_model_dir",
    "vis",
    "resume",
    "machine.num_devices",
)
"""Options that a sweep sets itself, as a batch does."""
LONGEST_NAME = 150
"""Characters that a run's name may have: names of files end at 255 bytes, and something is appended to this one."""


@dataclass(frozen=True)
class Job:
    """One training; plain values only, so that it can be handed to its process as JSON."""

    method: str
    """Name of the preset."""
    data: str
    """The frames; an absolute path."""
    out: str
    """Folder of all runs, as `ns-train --output-dir` takes it; an absolute path."""
    name: str
    """What stands in the place of a time stamp: the name of the run's folder."""
    assignments: tuple[str, ...]
    """PATH=VALUE of every option that is set, in order."""
    experiment: str | None = None
    """Name of the folder in `out`, as `ns-train --experiment-name` takes it; default: that of the frames."""

    def preset(self) -> Consistent4DTrainerConfig:
        """The preset as it is."""
        return preset(next(one for one in PRESETS if one.config.method_name == self.method))

    def config(self) -> Consistent4DTrainerConfig:
        """The preset with these options, checked; trained without a viewer.

        Raises:
            InputError: there is no such option, or it cannot have this value.
        """
        config = self.preset()
        config.data = config.pipeline.datamanager.data = Path(self.data)
        config.output_dir, config.timestamp, config.vis = Path(self.out), self.name, "tensorboard"
        config.experiment_name = self.experiment
        for assignment in self.assignments:
            assign(config, assignment)
        config.prepare()
        return config


def plan(method: str, data: Path, out: Path, seeds: Sequence[int], settings: Sequence[str]) -> list[Job]:
    """All trainings of a sweep: every combination of the values, in the order in which they are given.

    Args:
        method: Name of a preset.
        data: The frames.
        out: Folder of all runs.
        seeds: Values of the seed; none: that of the preset.
        settings: `PATH=VALUE,VALUE,...` each. A single value is set in every run.

    Raises:
        InputError: nothing is varied, something is given twice, or an option is unknown or cannot have a value.
    """
    axes = [_axis(setting) for setting in settings]
    if seeds:
        axes.append((SEED, [str(seed) for seed in seeds]))
    _check_axes(axes)
    short = short_names([path for path, values in axes if len(values) > 1 or path == SEED])
    jobs = []
    for chosen in product(*(values for _, values in axes)):
        values = dict(zip((path for path, _ in axes), chosen, strict=True))
        name = "_".join(f"{short[path]}-{plain(value)}" for path, value in values.items() if path in short)
        assignments = tuple(f"{path}={value}" for path, value in values.items())
        jobs.append(Job(method, str(absolute(data)), str(absolute(out)), name, assignments))
    _check_names(jobs)
    for job in jobs:
        job.config()
    return jobs


def _axis(setting: str) -> tuple[str, list[str]]:
    """An option and its values."""
    path, equals, values = setting.partition("=")
    if not (path and equals):
        raise InputError(f"--set {setting}: give PATH=VALUE,VALUE,..., as in pipeline.guidance.scale=1,1.5.")
    return field_path(path), [value.strip() for value in values.split(",")]


def _check_axes(axes: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Raises: InputError: nothing is varied, an option is the sweep's own, or something is given twice."""
    for path, values in axes:
        option = "--seeds" if path == SEED else f"--set {path}"
        if is_own(path):
            raise InputError(f"{option}: a sweep sets this itself; leave it out.")
        if Counter(other for other, _ in axes)[path] > 1:
            raise InputError(f"{path} is given twice: list all of its values in one place.")
        if repeated := [value for value, count in Counter(values).items() if count > 1]:
            raise InputError(f"{option} has {repeated[0]} twice: give each value once.")
    if all(len(values) < 2 for _, values in axes):
        raise InputError(
            "there is nothing to vary: give several --seeds, or several values with --set PATH=VALUE,VALUE."
        )


def is_own(path: str) -> bool:
    """Whether an option says where a run lies and what it goes on with, which is no choice where many are trained."""
    return path in OWN or path.startswith("load_")


def _check_names(jobs: Sequence[Job]) -> None:
    """Raises: InputError: the names of folders are not different, or too long."""
    for name, count in Counter(job.name.casefold() for job in jobs).items():
        if count > 1:
            raise InputError(f"two runs would get the folder {name}: leave out values that differ in signs alone.")
        if len(name) > LONGEST_NAME:
            raise InputError(f"a run would get the folder {name}, a name too long for a folder: vary fewer options.")


def plain(value: str) -> str:
    """A value as part of a folder's name."""
    return re.sub(r"[^\w.+-]+", "-", value, flags=re.ASCII)


def is_finished(config: Consistent4DTrainerConfig, overwrite: bool = False) -> bool:
    """Whether a training has been done to its end, and is not to be done again.

    Args:
        config: The training.
        overwrite: Whether any earlier run in its folder is to be replaced.

    Raises:
        InputError: its folder holds something else: a run with other options or frames, or no run.
    """
    folder = config.get_base_dir()
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        earlier = read_config(config_file(folder))
    except InputError as error:
        raise InputError(f"{folder} is in the way ({error}) Move it away, or give another --out.") from error
    if overwrite:
        return False
    if earlier.frames_path == config.frames_path:
        config.fix_camera(config.sequence())
    if changes := _changes(earlier, config):
        raise InputError(
            f"{folder} holds a run with other options ({changes}): give another --out, or --overwrite to train it anew."
        )
    if config.has_other_frames(folder):
        raise InputError(
            f"{folder} holds a run on other frames than {config.frames_path} now holds: give another --out, or "
            "--overwrite to train it anew."
        )
    newest = newest_whole(earlier.get_checkpoint_dir())
    return newest is not None and is_last(step_of(newest), config.max_num_iterations)


def _changes(earlier: Consistent4DTrainerConfig, config: Consistent4DTrainerConfig) -> str:
    """What an earlier run was trained with, where it differs."""
    frames = {} if earlier.frames_path == config.frames_path else {"data": [str(earlier.frames_path)]}
    changes = frames | differences([earlier, config])
    return ", ".join(f"{name} {values[0]}" for name, values in changes.items())
