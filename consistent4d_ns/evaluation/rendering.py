"""A run's object, seen by the evaluation cameras: what the original leaves to its users."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from consistent4d_ns.data.cameras import OrbitViews, orbit_camera
from consistent4d_ns.data.dataparser import read_cameras
from consistent4d_ns.data.times import even_times
from consistent4d_ns.errors import InputError
from consistent4d_ns.evaluation.layout import Clip, Note
from consistent4d_ns.media.pictures import render_colour, to_bytes
from consistent4d_ns.runs import Run

META = "meta.json"
"""File beside the truth's views that holds their cameras."""


@dataclass(frozen=True)
class Cameras:
    """The cameras of truth that comes without `meta.json`."""

    azimuths: tuple[float, ...]
    """Degrees from the input view, for eval_0, eval_1, ...; counter-clockwise seen from above."""
    elevation: float
    """Degrees above the horizon."""


PAPER = Cameras((-75.0, 15.0, 105.0, 195.0), 0.0)
"""The cameras of the paper's test set."""


def evaluation_cameras(
    folder: Path, views: Sequence[str], given: Cameras, input_view: OrbitViews
) -> dict[str, OrbitViews]:
    """The camera of each view: from the truth's `meta.json`, or `given` with distance and field of view of the input.

    Raises:
        InputError: `meta.json` cannot be used, or a view has no camera.
    """
    azimuth, distance, fovy = (float(value[0]) for value in (input_view.azimuth, input_view.distance, input_view.fovy))
    if (folder / META).is_file():
        cameras = read_cameras(folder / META)
    else:
        known = {"elevation": given.elevation, "distance": distance, "fovy": fovy}
        cameras = {f"eval_{i}": {"azimuth": degrees, **known} for i, degrees in enumerate(given.azimuths)}
    for view in (view for view in views if view not in cameras):
        where = folder / META if (folder / META).is_file() else "--azimuths"
        raise InputError(f"{folder / view} has no camera in {where}: add it there.")
    return {
        view: orbit_camera(f"{folder / view}", {**cameras[view], "azimuth": cameras[view]["azimuth"] + azimuth})
        for view in views
    }


def frame_times(run: Run, name: str, count: int, note: Note) -> list[float]:
    """Times in [0, 1] of the truth's frames: those of the run's input where it has as many, else evenly spaced."""
    own = run.pipeline.datamanager.frame_times.times
    if len(own) == count:
        return list(own)
    note(
        f"{name}: the truth has {count} frames, the run's input {len(own)}; it is taken to show the same time, evenly "
        "spaced, first frame to last."
    )
    return even_times(count).tolist()


def render_views(
    run: Run,
    name: str,
    folder: Path,
    truth: dict[str, Clip],
    given: Cameras,
    size: int | None,
    note: Note,
    progress: Callable[[Sequence[Any], str], Iterable[Any]],
) -> dict[str, Clip]:
    """Render what the truth shows: the same views at the same times, on white.

    Args:
        run: What is rendered.
        name: Its name in messages.
        folder: Folder of the truth.
        truth: The truth's views.
        given: Cameras of truth without `meta.json`.
        size: Side in pixels; default: that of the truth.
        note: Is told what is not as it should be.
        progress: Shows what is done.

    Raises:
        InputError: a view has no camera, or true images are not square.
    """
    data = run.pipeline.datamanager
    cameras = evaluation_cameras(folder, list(truth), given, data.input_view)
    times = {view: frame_times(run, name, len(clip), note) for view, clip in truth.items()}
    jobs = [
        (view, number, time) for view, clip in truth.items() for number, time in zip(clip, times[view], strict=True)
    ]
    side = size or truth_size(folder, truth)
    clips: dict[str, Clip] = {view: {} for view in truth}
    for view, number, time in progress(jobs, f"{name}: rendering"):
        clips[view][number] = to_bytes(render_colour(run.pipeline.model, cameras[view], time, side))
    return clips


def truth_size(folder: Path, truth: dict[str, Clip]) -> int:
    """Side of the truth's images in pixels.

    Raises:
        InputError: they are not square.
    """
    height, width = max(np.shape(image)[:2] for clip in truth.values() for image in clip.values())
    if height != width:
        raise InputError(f"{folder} holds images of {width}x{height}: runs are rendered as squares, so pad the truth.")
    return int(height)
