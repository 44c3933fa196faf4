"""The pictures of a comparison: which cameras and times, and one video that holds the pictures of all runs.

All runs share one video, so that they cannot get out of step; the page draws its parts in different places.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from consistent4d_ns.comparing.options import CompareOptions
from consistent4d_ns.data.datamanager import Consistent4DDataManager
from consistent4d_ns.data.times import checked_fps
from consistent4d_ns.errors import InputError
from consistent4d_ns.media.camera_paths import InputVideo, camera_path, checked_size, path_json
from consistent4d_ns.media.encoding import on_white, write_frames
from consistent4d_ns.media.path_options import Kind, PathOptions
from consistent4d_ns.media.pictures import input_video, nerfstudio_path, render_rows
from consistent4d_ns.media.tiles import INPUT, Tile
from consistent4d_ns.model import Consistent4DModel

if TYPE_CHECKING:
    from nerfstudio.cameras.cameras import Cameras

SIZE = 256
"""Largest side of a picture in pixels by default."""
SECONDS = (2.0, 8.0)
"""Shortest and longest duration by default: in less, an orbit is too quick to be judged."""
FPS = 16.0
"""Largest number of pictures a second by default."""
MAX_FRAMES = 1000
"""Largest number of pictures of a view."""
MAX_SIDE = 4096
"""Largest side of the video in pixels that every browser decodes."""

Pictures = Iterator[UInt8[np.ndarray, "size size 3"]]


@dataclass(frozen=True)
class Film:
    """What is rendered of every run; the same for all of them."""

    frames: int
    """Pictures of each view; time passes evenly from 0 to 1."""
    fps: float
    """Frames per second."""
    size: int
    """Side of each picture in pixels; even, as the video's format needs it."""
    orbit: Cameras
    """Cameras of the orbit, which begins at the input view of the first run."""

    @classmethod
    def of(cls, video: InputVideo, options: CompareOptions) -> Film:
        """The film of a comparison whose first run has this input video.

        Raises:
            InputError: an option is out of range.
        """
        fps = min(video.fps, FPS) if options.fps is None else checked_fps(options.fps)
        seconds = options.seconds
        if seconds is None:
            seconds = min(max(video.frames / video.fps, SECONDS[0]), SECONDS[1])
        check_length(seconds, fps)
        size, _ = checked_size(min(video.size, SIZE) if options.size is None else options.size)
        frames, size = max(1, round(seconds * fps)), size + size % 2
        return cls(frames, fps, size, path_cameras("orbit-in-time", frames, fps, size, video))

    def object_views(self, model: Consistent4DModel, data: Consistent4DDataManager) -> list[Pictures]:
        """The object as the input camera saw it, and on the orbit."""
        own = path_cameras("fixed-view", self.frames, self.fps, self.size, input_video(data))
        return [_on_white(model, data, cameras, "rgb") for cameras in (own, self.orbit)]

    def input_views(self, model: Consistent4DModel, data: Consistent4DDataManager) -> list[Pictures]:
        """The input video: at each time, the frame that is nearest."""
        own = path_cameras("fixed-view", self.frames, self.fps, self.size, input_video(data))
        return [_on_white(model, data, own, INPUT)]


def check_length(seconds: float, fps: float) -> None:
    """Raises: InputError: a video of this length cannot be part of a page."""
    if not (0.0 < seconds < math.inf and seconds * fps <= MAX_FRAMES):
        raise InputError(
            f"--seconds is {seconds:g}: give more than 0, and at most {MAX_FRAMES / fps:g} at {fps:g} fps."
        )


def check_options(options: CompareOptions) -> None:
    """Raises: InputError: an option is out of range, whatever the runs."""
    Film.of(InputVideo(), options)


def path_cameras(kind: Kind, frames: int, fps: float, size: int, video: InputVideo) -> Cameras:
    """Cameras of a path, with times."""
    options = PathOptions(frames=frames, fps=fps, size=size)
    return nerfstudio_path(path_json(camera_path(kind, options, video)))[0]


def _on_white(model: Consistent4DModel, data: Consistent4DDataManager, cameras: Cameras, output: str) -> Pictures:
    yield from map(on_white, render_rows(model, data, cameras, [Tile(output)]))


class Sheet:
    """The pictures of all views, on the disk until they become one video: in memory they would take gigabytes."""

    def __init__(self, folder: Path, film: Film, most: int) -> None:
        """
        Args:
            folder: For temporary files.
            film: Length and size.
            most: How many views there may be.

        Raises:
            InputError: more than fit into one video.
        """
        columns = columns_for(most)
        if columns * film.size > MAX_SIDE:
            raise InputError(
                f"{most} pictures of {film.size} x {film.size} pixels are more than a video in a page can show: give "
                f"--size {MAX_SIDE // columns // 2 * 2}, or fewer runs."
            )
        self.film, self.folder = film, folder
        shape = (film.frames, most, film.size, film.size, 3)
        self._pixels = np.lib.format.open_memmap(folder / "pictures.npy", "w+", np.uint8, shape)
        self.views = 0
        """Views that are on the sheet."""

    @property
    def columns(self) -> int:
        """Views side by side in the video."""
        return columns_for(self.views)

    def add(self, pictures: Pictures) -> Iterator[int]:
        """Put a view on the sheet; yields the place of the view after each picture."""
        place = self.views
        self.views += 1
        for index, picture in enumerate(pictures):
            self._pixels[index, place] = picture
            yield place

    def video(self) -> str:
        """All views in one video, place after place in rows, as base64 of an mp4 file."""
        file = self.folder / "film.mp4"
        write_frames(file, "mp4", map(self._frame, self._pixels), self.film.fps)
        return base64.b64encode(file.read_bytes()).decode("ascii")

    def _frame(self, views: UInt8[np.ndarray, "views size size 3"]) -> UInt8[np.ndarray, "height width 4"]:
        size, columns = self.film.size, self.columns
        frame = np.full((math.ceil(self.views / columns) * size, columns * size, 4), 255, np.uint8)
        for place, view in enumerate(views[: self.views]):
            top, left = place // columns * size, place % columns * size
            frame[top : top + size, left : left + size, :3] = view
        return frame


def columns_for(views: int) -> int:
    """Views side by side in a video whose shape is roughly square."""
    return math.ceil(math.sqrt(views))
