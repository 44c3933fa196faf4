"""Opens runs one after the other, and takes from each what the page shows of it."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consistent4d_ns.comparing.curves import Curve, finest_curves
from consistent4d_ns.comparing.film import Film, Pictures, Sheet
from consistent4d_ns.comparing.options import CompareOptions
from consistent4d_ns.data.datamanager import Consistent4DDataManager
from consistent4d_ns.errors import InputError
from consistent4d_ns.files.checkpoints import choose_checkpoint
from consistent4d_ns.media.figures import Figures, average, input_view, measure, novel_views
from consistent4d_ns.media.pictures import input_video
from consistent4d_ns.messages import warn
from consistent4d_ns.record.effort import Effort, read_effort
from consistent4d_ns.record.history import read_history
from consistent4d_ns.record.report import HISTORY, stages_of
from consistent4d_ns.runs import Run, open_run, read_config

if TYPE_CHECKING:
    from consistent4d_ns.trainer_config import Consistent4DTrainerConfig

Progress = Callable[[Iterable[Any], str, int], Iterator[Any]]
"""Passes items on and shows how many of a total are done, under a name (see `cli.progress`)."""


@dataclass(frozen=True)
class Input:
    """The frames that runs were trained on."""

    name: str
    """Of their file or folder."""
    frames: int
    """How many there are."""
    size: int
    """Their side in pixels."""
    place: int
    """Where their pictures are on the sheet."""


@dataclass(frozen=True)
class Seen:
    """What the page shows of one run."""

    label: str
    """What to call it."""
    config: Consistent4DTrainerConfig
    """What it was trained with."""
    data: str
    """Fingerprint of its frames."""
    step: int
    """Training step of its checkpoint."""
    places: tuple[int, ...]
    """Where its pictures are on the sheet: the input view, the orbit."""
    input_figures: Figures | None
    """Figures of the input view; None where they were not asked for."""
    novel_figures: Figures | None
    """Figures of the ground truth's views; None where there are none, or were not asked for."""
    effort: Effort | None
    """What its training took, if that is recorded."""
    curves: Mapping[str, Curve]
    """Its losses by term."""
    stages: Mapping[int, str]
    """First steps of the stages of its training."""


@dataclass(frozen=True)
class Comparison:
    """Everything on the page."""

    runs: Sequence[Seen]
    """The runs in the order in which they were given."""
    inputs: Mapping[str, Input]
    """The frames they were trained on, by fingerprint."""
    film: Film
    """Length, size and rate of the pictures."""
    columns: int
    """Pictures side by side in the video."""
    video: str
    """All pictures: base64 of an mp4 file."""


def read_runs(runs: Sequence[Path], data: Path | None = None) -> list[Consistent4DTrainerConfig]:
    """The configurations of runs, of which everything is checked that can be before one is loaded.

    Args:
        runs: Folders of runs, or their `config.yml`.
        data: Where their frames are now, if they were moved.

    Raises:
        InputError: a run is given twice, or cannot be opened.
    """
    given: dict[Path, Path] = {}
    configs = [read_config(run, data) for run in runs]
    for run, config in zip(runs, configs, strict=True):
        if not config.has_frames:
            raise InputError(
                f"{run} was trained from a prompt, and a comparison shows the frames of a run: look at it with "
                f"`consistent4d view {shlex.quote(str(run))}`."
            )
        folder = config.get_base_dir().resolve()
        if folder in given:
            raise InputError(f"{given[folder]} and {run} are the same run: name each run once.")
        given[folder] = run
        choose_checkpoint(config.get_checkpoint_dir())
        frames = config.frames_path
        if frames is not None and not frames.exists():
            raise InputError(f"the frames of {run} are no longer at {frames}: say with --data where they are.")
    return configs


def compare_runs(
    runs: Mapping[str, Consistent4DTrainerConfig],
    options: CompareOptions,
    folder: Path,
    progress: Progress,
) -> Comparison:
    """Render and measure runs, one after the other.

    Args:
        runs: Configurations of runs, as `read_runs` gives them, by what to call them; at least one.
        options: What is rendered and measured.
        folder: For temporary files.
        progress: Shows how much is done.

    Raises:
        InputError: a run cannot be opened, or an option is out of range.
    """
    sheet: Sheet | None = None
    inputs, seen = dict[str, Input](), list[Seen]()
    for label, config in runs.items():
        run = open_run(config)
        if sheet is None:
            film = Film.of(input_video(run.pipeline.datamanager), options)
            sheet = Sheet(folder, film, most=3 * len(runs))
        seen.append(_look(label, run, sheet, inputs, options, progress))
        del run  # Before the next one is loaded.
    assert sheet is not None, "at least one run"
    return Comparison(seen, inputs, sheet.film, sheet.columns, sheet.video())


def _look(
    label: str, run: Run, sheet: Sheet, inputs: dict[str, Input], options: CompareOptions, progress: Progress
) -> Seen:
    """Everything about one run; adds its frames to `inputs` unless an earlier run was trained on the same."""
    model, data, film = run.pipeline.model, run.pipeline.datamanager, sheet.film
    model.config.render_normals = False  # Neither shown nor measured, they would take most of the time.
    frames = fingerprint(data)
    if frames not in inputs:
        place = sheet.views
        _draw(film.input_views(model, data), sheet, lambda pictures: pictures)
        inputs[frames] = Input(run.source_name, data.num_frames, data.frames.shape[-1], place)
    places = range(sheet.views, sheet.views + 2)
    views = film.object_views(model, data)
    _draw(views, sheet, lambda pictures: progress(pictures, f"Rendering {label}", len(views) * film.frames))
    figures = _measure(label, run, options, progress)
    stages = stages_of(run.pipeline, distils=run.config.pipeline.guidance.kind != "none")
    curves = _curves(run, list(stages))
    return Seen(label, run.config, frames, run.step, tuple(places), *figures, _effort(run), curves, stages)


def _draw(views: Sequence[Pictures], sheet: Sheet, shown: Callable[[Iterable[int]], Iterable[int]]) -> None:
    for _ in shown(place for view in views for place in sheet.add(view)):
        pass


def _measure(
    label: str, run: Run, options: CompareOptions, progress: Progress
) -> tuple[Figures | None, Figures | None]:
    """Figures of the input view and of novel views."""
    if not options.figures:
        return None, None
    data = run.pipeline.datamanager
    views = [input_view(data), *novel_views(data)]
    measured = measure(run.pipeline.model, data, views)
    figures = list(progress(measured, f"Measuring {label}", len(views) * data.num_frames))
    filmed, novel = figures[: data.num_frames], figures[data.num_frames :]
    return average(filmed), average(novel) if novel else None


def _effort(run: Run) -> Effort | None:
    """What the training took; None where it is not known of the training that ended with this checkpoint."""
    effort = read_effort(run.config.get_base_dir())
    return effort if effort is not None and effort.last_step == run.step else None


def _curves(run: Run, stages: Sequence[int]) -> dict[str, Curve]:
    """The loss curves of a run; none, with a warning, if there can be none: the rest of the page needs none."""
    file = run.config.get_base_dir() / HISTORY
    try:
        return finest_curves(read_history(file), stages)
    except InputError:
        reason = "is damaged"
    except ValueError as error:
        reason = f"has {error}"
    warn(f"{file} {reason}: no loss curves of this run are shown.")
    return {}


def labels_of(runs: Sequence[Path]) -> list[str]:
    """What to call runs: the last parts of their folders' paths, as many as it takes to tell them apart."""
    folders = [(run if run.is_dir() else run.parent).resolve() for run in runs]
    depth = 1
    while len({folder.parts[-depth:] for folder in folders}) < len(set(folders)):
        depth += 1
    return ["/".join(folder.parts[-depth:]) for folder in folders]


def fingerprint(data: Consistent4DDataManager) -> str:
    """What two runs have in common if, and only if, they were trained on the same pictures at the same times."""
    frames = data.frames.cpu().numpy()
    return hashlib.sha256(repr((data.frame_times.times, frames.shape)).encode() + frames.tobytes()).hexdigest()
