"""What the enhancer of a run is trained on: rendered videos of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from consistent4d_ns.data.cameras import full_circle
from consistent4d_ns.data.datamanager import Consistent4DDataManager
from consistent4d_ns.enhancing.training import Clips
from consistent4d_ns.errors import InputError
from consistent4d_ns.media.camera_paths import camera_path, path_json
from consistent4d_ns.media.encoding import on_white
from consistent4d_ns.media.path_options import PathOptions
from consistent4d_ns.media.pictures import input_video, nerfstudio_path, render_rows
from consistent4d_ns.media.tiles import Tile
from consistent4d_ns.model import Consistent4DModel

MAX_BYTES = 4_000_000_000
"""Most memory of all frames together in bytes; training holds about four times as much."""


def render_clips(
    model: Consistent4DModel,
    data: Consistent4DDataManager,
    clips: int,
    size: int,
    progress: Callable[[Iterable[Any], int], Iterable[Any]] = lambda frames, _: frames,
) -> Clips:
    """Orbits while time passes, at the height and distance of the input camera, with a frame for each of the input.

    Where the input is a single frame no time passes, and an orbit has as many frames as `camera_path` gives it.

    Args:
        model: The trained object.
        data: Its input.
        clips: Number of orbits; the azimuths at which they begin are evenly spaced, so that together they show every
            time from many sides.
        size: Side of the images in pixels.
        progress: Shows how many frames are done.

    Raises:
        InputError: The frames need more memory than `MAX_BYTES`.
    """
    video = input_video(data)
    paths = [camera_path("orbit-in-time", PathOptions(azimuth=turn, size=size), video) for turn in full_circle(clips)]
    if 3 * size * size * sum(len(path.times) for path in paths) > MAX_BYTES:
        raise InputError(
            f"--clips {clips} of {len(paths[0].times)} frames at --size {size} are more than {MAX_BYTES / 1e9:g} GB of "
            "images: give fewer, or smaller ones."
        )
    cameras = [nerfstudio_path(path_json(path))[0] for path in paths]
    rows = (row for path in cameras for row in render_rows(model, data, path, [Tile("rgb")]))
    frames = np.stack([on_white(row) for row in progress(rows, clips * len(cameras[0]))])
    return torch.from_numpy(frames).movedim(-1, 1).unflatten(0, (clips, -1))
