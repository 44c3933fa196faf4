"""Camera paths: a camera pose and a time for each frame; pure functions.

A path is stored as the viewer and `ns-render camera-path` keep it, a JSON object with one pose, field of view and
`render_time` per frame.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from consistent4d_ns.data.cameras import DEFAULT_CAMERA, OrbitViews, full_circle, orbit_camera, turned
from consistent4d_ns.data.images import MAX_SIDE
from consistent4d_ns.data.times import DEFAULT_FPS, TIME_SLACK, check_times, checked_fps, even_times
from consistent4d_ns.errors import InputError
from consistent4d_ns.files.json_files import number, read_json
from consistent4d_ns.media.path_options import KINDS, Kind, PathOptions

EVALUATION_AZIMUTHS = (-75.0, 15.0, 105.0, 195.0)
"""Degrees from the input view of the views that the paper's figures are measured on, all at elevation 0."""
FROZEN_TIMES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Default times of frozen-orbits."""
CAMERA_TYPES = ("perspective", "fisheye", "equirectangular")
"""Camera types that a file may have; Nerfstudio's others render two images, one for each eye."""
MIN_SIDE = 16
"""Smallest accepted width or height in pixels."""
STILL_FRAMES = 64
"""Default frames of an orbit around an object that was filmed in one frame."""
MAX_FRAMES = 100_000
"""Largest accepted number of frames of an orbit or a sweep, and of a file."""
FARTHEST = 1e4
"""Largest accepted coordinate of a camera in a file."""
FLATTEST = 1e-6
"""Smallest accepted volume that the axes of a camera in a file span; those of unit length span 1."""
FOVS = (0.01, 179.0)
"""Accepted fields of view in a file, in degrees."""


@dataclass(frozen=True)
class InputVideo:
    """The input video that a path is made for; the defaults are those of `FrameSequence`."""

    frames: int = 32
    """Number of frames."""
    fps: float = DEFAULT_FPS
    """Frames a second."""
    camera: Mapping[str, float] = field(default_factory=lambda: DEFAULT_CAMERA)
    """Elevation, azimuth, distance and fovy of the input camera."""
    size: int = 256
    """Width and height of its frames in pixels."""


@dataclass(frozen=True)
class CameraPath:
    """A camera and a time for each frame."""

    views: OrbitViews
    """Cameras, one per frame."""
    times: Float[Tensor, " frames"]
    """Times in [0, 1]."""
    fps: float
    """Frames a second."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""


def camera_path(kind: Kind, options: PathOptions, video: InputVideo) -> CameraPath:
    """The camera path of a kind for a video. Where that has a single frame, no time passes.

    Raises:
        InputError: An option is out of range, or does not apply to this kind or video.
    """
    _check_applies(kind, options, video)
    fps = video.fps if options.fps is None else checked_fps(options.fps)
    frames = options.frames
    if frames is None:
        frames = max(1, round(video.frames / video.fps * fps))
        if video.frames == 1:
            frames = STILL_FRAMES if "orbit" in kind else 1
    if not 1 <= frames <= MAX_FRAMES:
        raise InputError(f"--frames is {frames}: use a number from 1 to {MAX_FRAMES}.")
    width, height = checked_size(video.size if options.size is None else options.size)
    azimuths, times = _course(kind, frames, options, video.frames > 1)
    view = _view(kind, options, video)
    elevation, distance, fovy = (value.expand(len(azimuths)) for value in (view.elevation, view.distance, view.fovy))
    views = OrbitViews(elevation, view.azimuth + torch.tensor(azimuths), distance, fovy)
    return CameraPath(views, torch.tensor(times), fps, width, height)


def checked_size(size: int | Sequence[int]) -> tuple[int, int]:
    """Width and height of images, checked.

    Raises:
        InputError: They are out of range.
    """
    width, height = (size, size) if isinstance(size, int) else size
    if not (min(width, height) >= MIN_SIDE and max(width, height) <= MAX_SIDE):
        raise InputError(f"--size is {width} x {height}: use sides from {MIN_SIDE} to {MAX_SIDE} pixels.")
    return width, height


def path_json(path: CameraPath) -> dict[str, Any]:
    """The path as the viewer and `ns-render camera-path` read it.

    Every frame is a keyframe too, with its own time, field of view and duration, so that the viewer's render tab plays
    exactly these frames.
    """
    poses = torch.cat((path.views.poses(), torch.tensor([0.0, 0.0, 0.0, 1.0]).expand(len(path.views), 1, 4)), dim=1)
    frames = zip(poses.flatten(1).tolist(), path.views.fovy.tolist(), path.times.tolist(), strict=True)
    cameras, keyframes = [], []
    for pose, fov, time in frames:
        matrix = [round(value, 6) + 0.0 for value in pose]  # + 0.0 turns -0.0 into 0.0.
        lens = {"fov": round(fov, 4), "aspect": path.width / path.height, "render_time": round(time, 6)}
        cameras.append({"camera_to_world": matrix, **lens})
        keyframes.append({"matrix": matrix, **lens, "override_time_enabled": True})
    return {
        "camera_type": "perspective",
        "render_width": path.width,
        "render_height": path.height,
        "fps": path.fps,
        "seconds": len(path.views) / path.fps,
        "default_transition_sec": 1.0 / path.fps,
        "camera_path": cameras,
        "keyframes": keyframes,
    }


def read_path(file: Path) -> dict[str, Any]:
    """A camera path made in the viewer or by `path_json`, checked; its numbers are floats. It needs no keyframes.

    Raises:
        InputError: The file is not a camera path, or has times outside 0..1, or times for some of the frames only.
    """
    remedy = "give a camera path as the viewer or `consistent4d camera-path` writes it"
    try:
        path = _normalised(read_json(file))
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}; {remedy}.") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RuntimeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{file} is no camera path ({reason}): {remedy}.") from error
    frames = path["camera_path"]
    if path["camera_type"] not in CAMERA_TYPES:
        types = ", ".join(CAMERA_TYPES)
        raise InputError(f"{file} has the camera_type {path['camera_type']}: use {types}, or `ns-render`.")
    if not (frames and 0 < path["seconds"] < math.inf and all(map(_is_possible, frames))):
        raise InputError(f"{file} is no camera path (no frames, or numbers out of range): {remedy}.")
    times = [frame["render_time"] for frame in frames if "render_time" in frame]
    if len(times) not in (0, len(frames)):
        raise InputError(f"{file} has a render_time in {len(times)} of {len(frames)} frames: give it in all, or none.")
    checked_size((path["render_width"], path["render_height"]))
    check_times(times, str(file), TIME_SLACK)
    return path


def _normalised(path: Any) -> dict[str, Any]:
    """A file's path with numbers of the types that Nerfstudio's reader expects; raises what broken data raises.

    Nerfstudio makes tensors of the numbers as they are, and whole ones would become integer tensors.
    """
    if len(path["camera_path"]) > MAX_FRAMES:
        raise ValueError(f"{len(path['camera_path'])} frames, and at most {MAX_FRAMES} are rendered")
    return path | {
        "camera_type": str(path.get("camera_type", CAMERA_TYPES[0])).lower(),
        "render_width": int(number(path["render_width"], "render_width")),
        "render_height": int(number(path["render_height"], "render_height")),
        "seconds": number(path["seconds"], "seconds"),
        "crop": _crop(path.get("crop")),
        "camera_path": [_normalised_frame(frame) for frame in path["camera_path"]],
    }


def _normalised_frame(frame: dict[str, Any]) -> dict[str, Any]:
    pose = torch.tensor(frame["camera_to_world"], dtype=torch.float64).reshape(16).tolist()
    numbers = {
        name: number(frame[name], name) for name in ("fov", "aspect", "render_time") if name == "fov" or name in frame
    }
    return frame | {"camera_to_world": pose} | numbers


def _is_possible(frame: Mapping[str, Any]) -> bool:
    """Whether a camera can have this pose, field of view and aspect.

    Its axes have to be three directions, as long as any program writes them; the object's box has a side of 2.
    """
    pose = frame["camera_to_world"]
    finite = all(map(math.isfinite, pose)) and max(map(abs, pose)) <= FARTHEST
    axes = np.reshape(pose, (4, 4))[:3, :3]
    return (
        finite
        and bool(abs(np.linalg.det(axes)) > FLATTEST)
        and FOVS[0] <= frame["fov"] <= FOVS[1]
        and 0 < frame.get("aspect", 1.0) < math.inf
    )


def _crop(crop: Any) -> dict[str, Any] | None:
    """A file's crop box, if it has one, in the numbers that Nerfstudio expects; raises what broken data raises."""
    if crop is None:
        return None
    rotation = crop.get("crop_rot", (0, 0, 0))
    vectors = {"crop_center": crop["crop_center"], "crop_scale": crop["crop_scale"], "crop_rot": rotation}
    numbers = {name: [number(x, name), number(y, name), number(z, name)] for name, (x, y, z) in vectors.items()}
    return numbers | {"crop_bg_color": {name: number(crop["crop_bg_color"][name], "crop_bg_color") for name in "rgb"}}


def _course(kind: Kind, frames: int, options: PathOptions, passes: bool) -> tuple[list[float], list[float]]:
    """Azimuths in degrees from the input view, and times, of all frames; without time that passes, all times are 0."""
    azimuth = turned(options.azimuth or 0.0)
    circle = [azimuth + turn for turn in full_circle(frames)]
    sweep = even_times(frames).tolist() if passes else [0.0] * frames
    if kind == "fixed-view":
        return [azimuth] * frames, sweep
    if kind == "orbit-in-time":
        return circle, sweep
    if kind == "evaluation-views":
        return [view for view in EVALUATION_AZIMUTHS for _ in sweep], sweep * len(EVALUATION_AZIMUTHS)
    times = options.times or (FROZEN_TIMES if kind == "frozen-orbits" and passes else (0.0,))
    check_times(times, "--times")
    return circle * len(times), [time for time in times for _ in circle]


def _view(kind: Kind, options: PathOptions, video: InputVideo) -> OrbitViews:
    """The camera whose azimuth the path changes."""
    level = {"elevation": 0.0} if kind == "evaluation-views" else {}
    options_given = {name: getattr(options, name) for name in ("elevation", "distance", "fovy")}
    given = {name: value for name, value in options_given.items() if value is not None}
    return orbit_camera("the camera path", {**video.camera, **level, **given})


def _check_applies(kind: Kind, options: PathOptions, video: InputVideo) -> None:
    """Raises: InputError: an option does not apply to this kind or video."""
    if kind not in KINDS:
        raise InputError(f"there is no camera path {kind}: choose from {', '.join(KINDS)}.")
    if options.times is not None and kind not in ("orbit", "frozen-orbits"):
        raise InputError(f"--times applies to orbit and frozen-orbits; {kind} passes through all times.")
    if kind == "orbit" and options.times is not None and len(options.times) != 1:
        raise InputError(f"orbit has one time, but --times names {len(options.times)}: use frozen-orbits.")
    if video.frames == 1 and any(options.times or ()):
        raise InputError("the run was trained on a single frame, whose time is 0: leave out --times.")
    if options.azimuth is not None and kind == "evaluation-views":
        raise InputError("--azimuth does not apply to evaluation-views, whose azimuths are those of the paper.")
    if options.azimuth is not None and not math.isfinite(options.azimuth):
        raise InputError(f"--azimuth is {options.azimuth}: use a number of degrees.")
