"""Times for camera paths that Nerfstudio creates without any."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

from nerfstudio.cameras.cameras import Cameras

from consistent4d_ns.data.times import even_times

MAKERS = ("get_interpolated_camera_path", "get_path_from_json", "get_spiral_path")
"""Functions from which `nerfstudio.scripts.render` gets its paths, by the names they have there in Nerfstudio 1.1.5."""


def with_times(path: Cameras) -> Cameras:
    """The path; where it has no times, time passes evenly from 0 at its first camera to 1 at its last."""
    if path.times is None:
        path.times = even_times(len(path))[:, None]
    return path


def sweep_time_along_untimed_paths() -> None:
    """Let time pass along the paths of `ns-render`, if that is what runs in this process, where they have no times.

    Interpolation between cameras drops their times, and files may have none. Nerfstudio renders a path camera by
    camera, so the model never sees the path.
    """
    script = sys.modules.get("nerfstudio.scripts.render")
    for name in MAKERS if script else ():
        make = getattr(script, name)
        if not hasattr(make, "__wrapped__"):
            setattr(script, name, _timed(make))


def _timed(make: Callable[..., Cameras]) -> Callable[..., Cameras]:
    @wraps(make)
    def timed(*args: Any, **kwargs: Any) -> Cameras:
        return with_times(make(*args, **kwargs))

    return timed
