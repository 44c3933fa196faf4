"""Nerfstudio data parser for one segmented video of a fixed camera (method.md section 2).

Only leaf modules are imported here: Nerfstudio loads this module while its own import is still in progress.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from natsort import natsorted
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.plugins.registry_dataparser import DataParserSpecification
from torch import Tensor

from consistent4d_ns.data.cameras import DEFAULT_CAMERA, OrbitViews, orbit_camera
from consistent4d_ns.data.listing import OPTIONS, FrameList, list_frames
from consistent4d_ns.data.prepared import read_prepared
from consistent4d_ns.data.rays import focal_length
from consistent4d_ns.data.times import DEFAULT_FPS, LEAST_FPS, FrameTimes, checked_fps
from consistent4d_ns.errors import InputError, show_input_errors_in_one_line
from consistent4d_ns.files.json_files import number, read_json
from consistent4d_ns.files.names import expanded, is_plain_name
from consistent4d_ns.messages import say

CAMERA = ("elevation", "distance", "fovy")
"""Options of the input camera."""
META_KEYS = {"elevation": "elevation_deg", "azimuth": "azimuth_deg", "distance": "distance", "fovy": "fov_y_deg"}
"""Their keys in meta.json."""
IMAGE_SIZES = (16, 4096)
"""Accepted range of `image_size` in pixels; SSIM uses windows of 11 pixels."""


@dataclass
class ObjectDataParserConfig(DataParserConfig):
    """Cameras that look at an object, whether or not there are frames of it."""

    data: Path = Path()
    """Frames, where there are any."""
    elevation: float | None = None
    """Degrees of the front view's camera above the object, -90 to 90; when omitted 0."""
    distance: float | None = None
    """Distance of all cameras from the origin in world units, 1 to 100 (the object fits in the unit ball); when omitted
    2."""
    fovy: float | None = None
    """Vertical field of view of all cameras in degrees, 1 to 179; when omitted 49.1."""
    image_size: int = 256
    """Side in pixels of pictures of the object by default, 16 to 4096."""
    downscale_factor: ClassVar[float | None] = None
    """Divides `image_size`; `ns-render dataset --downscale-factor` sets it. Not a field, hence not an option."""
    has_frames: ClassVar[bool] = True
    """Whether there are frames to train on."""


@dataclass
class FrameSequenceDataParserConfig(ObjectDataParserConfig):
    """A folder of RGBA frames, or one animated file or image with alpha, seen by one fixed camera at azimuth 0.

    Where the folder holds `input/`, `eval_*/` and `meta.json`, the other views become the evaluation split.
    """

    _target: type = field(default_factory=lambda: FrameSequence)
    """Target class to instantiate."""
    data: Path = Path()
    """Folder of PNG or WebP frames with alpha (8 or 16 bit); or one animated file with alpha (GIF, APNG, WebP, WebM,
    MKV, MOV or MP4), whose frames keep the times at which they are shown; or one PNG or WebP image with alpha."""
    alpha: Literal["straight", "premultiplied"] = "straight"
    """Whether colours in the files are straight, as the PNG standard has it and segmentation tools write them, or
    multiplied by alpha, as some compositing programs write them."""
    frame_start: int = 0
    """Index of the first frame that is taken, counted from 0."""
    frame_stride: int = 1
    """Take every n-th frame."""
    frame_count: int | None = None
    """Take this many frames, counted after start and stride; all of them when omitted."""
    fps: float | None = None
    """Frames per second of the video as it was filmed, at which it is played and rendered; when omitted that of an
    animated file or of names that are time stamps, else 16. Of unevenly spaced frames the mean."""
    elevation: float | None = None
    """Degrees of the input camera above the object, -90 to 90; when omitted that of meta.json or prepare.json, else
    0."""
    distance: float | None = None
    """Distance of the input camera from the origin in world units, 1 to 100 (the object fits in the unit ball); when
    omitted that of meta.json, else 2."""
    fovy: float | None = None
    """Vertical field of view of the input camera in degrees, 1 to 179; when omitted that of meta.json, else 49.1."""
    image_size: int = 256
    """Side in pixels at which frames are stored, 16 to 4096; training stages scale them down from it."""


@dataclass(frozen=True)
class View:
    """A fixed camera and the frames it recorded."""

    frames: FrameList
    """The chosen frames."""
    camera: OrbitViews
    """Its camera: one view."""


class FrameSequence(DataParser):
    """Lists the frames and places the cameras; the dataset decodes the frames when they are needed.

    Metadata of the outputs: "frames" (tuple of FrameList, one per view), "input_view" (OrbitViews of length 1),
    "ground_truth" (whether the evaluation split shows unseen sides) and "frame_times" (FrameTimes of the chosen frames,
    the same for all views).
    """

    config: FrameSequenceDataParserConfig

    def __init__(self, config: FrameSequenceDataParserConfig) -> None:
        super().__init__(config)
        self.source = expanded(config.data)
        show_input_errors_in_one_line()

    def _generate_dataparser_outputs(self, split: str = "train", **kwargs: Any) -> DataparserOutputs:
        """Outputs of "train" (the input view) or of "val" and "test" (the unseen views if known, else the input view).

        Raises:
            InputError: An option is out of range, or frames or meta.json cannot be used.
        """
        size = checked_image_size(round(self.config.image_size / (self.config.downscale_factor or 1.0)))
        views = [self.input_view] if split == "train" else self.unseen_views or [self.input_view]
        return DataparserOutputs(
            image_filenames=[path for view in views for path in view.frames.paths],
            cameras=nerfstudio_cameras(views, self.frame_times, size),
            scene_box=SceneBox(aabb=object_box()),
            metadata={
                "frames": tuple(view.frames for view in views),
                "input_view": self.input_view.camera,
                "ground_truth": bool(self.unseen_views),
                "frame_times": self.frame_times,
            },
        )

    @cached_property
    def cameras(self) -> dict[str, dict[str, float]]:
        """Camera of each view, by the name of its folder; empty without ground truth."""
        folder = self.source
        if not (folder / "input").is_dir():
            return {}
        if not (folder / "meta.json").is_file():
            raise InputError(f"{folder} has input/ but no meta.json: add it, or give {folder / 'input'} as --data")
        return read_cameras(folder / "meta.json")

    @cached_property
    def input_view(self) -> View:
        """The view trained on."""
        return View(self._list(self.input_folder), self.input_camera)

    @cached_property
    def input_camera(self) -> OrbitViews:
        """Its camera: from the options, then meta.json or prepare.json, then the defaults."""
        options = {name: getattr(self.config, name) for name in CAMERA}
        given = {name: value for name, value in options.items() if value is not None}
        prepared = read_prepared(self.input_folder)
        known = {} if prepared is None or prepared.elevation is None else {"elevation": prepared.elevation}
        camera = {**DEFAULT_CAMERA, **known, **self.cameras.get("input", {}), **given}
        return orbit_camera(f"the input camera of {self.source}", camera)

    @property
    def input_folder(self) -> Path:
        """The folder of the frames that are trained on, or the file that holds them."""
        return self.source / "input" if self.cameras else self.source

    @cached_property
    def unseen_views(self) -> list[View]:
        """The ground-truth views besides the input view, in natural order of their folders."""
        if not self.cameras:
            return []
        folder = self.source
        check_folders(folder, set(self.cameras))
        unseen = [folder / name for name in natsorted(self.cameras) if name != "input"]
        views = [View(self._list(path), orbit_camera(str(path), self.cameras[path.name])) for path in unseen]
        for view in views:
            check_same_length(self.input_view.frames, view.frames)
        return views

    @property
    def includes_time(self) -> bool:  # type: ignore[override]
        """Whether there is any time to choose from; Nerfstudio's viewer shows a slider for it then."""
        return len(self.frame_times) > 1

    @cached_property
    def frame_times(self) -> FrameTimes:
        """When the chosen frames were filmed; ground-truth views show the same moments."""
        frames = self.input_view.frames
        filmed = self.config.fps
        if filmed is None:
            filmed = frames.spacing.rate or DEFAULT_FPS
        times = FrameTimes.at(frames.positions, checked_fps(filmed, f"{OPTIONS}fps", LEAST_FPS))
        if not times.is_even:
            say(
                f"{frames.source}: the frames are unevenly spaced in time and keep their times; consistency clips and "
                "rendered videos, which need even steps, are resampled: even times, each with the nearest frame."
            )
        return times

    def frame_files(self) -> dict[str, Path]:
        """The files of the frames that are trained on, by name: one by one, or the file that holds them all.

        That of the cameras, if there is one, is among them.

        Raises:
            InputError: The frames cannot be listed.
        """
        frames, cameras = self._chosen(self.input_folder), {}
        if self.cameras:
            cameras = {"meta.json": self.source / "meta.json"}
        if frames.source.is_dir():
            return cameras | dict(zip(frames.names, frames.paths, strict=True))
        return cameras | {" ".join(map(str, frames.indices)): frames.source}

    def _chosen(self, path: Path) -> FrameList:
        """The chosen frames of one view."""
        premultiplied = self.config.alpha == "premultiplied"
        start, stride, count = self.config.frame_start, self.config.frame_stride, self.config.frame_count
        return list_frames(path, stride, count, start=start, premultiplied=premultiplied)

    def _list(self, path: Path) -> FrameList:
        """The chosen frames of one view; says what else lies in its folder."""
        frames = self._chosen(path)
        if frames.ignored:
            say(f"{path}: ignoring what is not a frame of the series: {enumeration(frames.ignored)}")
        return frames


def enumeration(names: tuple[str, ...], most: int = 10) -> str:
    """The first few of some names, and how many more there are."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def read_cameras(meta: Path) -> dict[str, dict[str, float]]:
    """Cameras of a meta.json by view; azimuths are relative to that of the view "input".

    Raises:
        InputError: The file is not JSON, or a camera or one of its numbers is missing.
    """
    try:
        cameras = read_json(meta)["cameras"]
        read = {view: _camera(view, camera) for view, camera in cameras.items()}
        origin = read["input"]["azimuth"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{meta} is broken ({type(error).__name__}: {error}): it needs cameras.input and cameras.eval_*, "
            f"each with the numbers {', '.join(META_KEYS.values())}"
        ) from error
    return {view: {**camera, "azimuth": camera["azimuth"] - origin} for view, camera in read.items()}


def _camera(view: str, camera: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of a view's camera; raises what broken data raises."""
    if not is_plain_name(view):
        raise ValueError(f"the view {view[:40]!r} is no name of a folder beside it")
    return {name: number(camera[key], f"{key} of {view}") for name, key in META_KEYS.items()}


def nerfstudio_cameras(views: list[View], times: FrameTimes, size: int) -> Cameras:
    """One camera per frame, view after view, for images of `size` x `size` pixels."""
    lengths = torch.tensor([len(view.frames) for view in views])
    poses = torch.cat([view.camera.poses() for view in views]).repeat_interleave(lengths, dim=0)
    fovy = torch.cat([view.camera.fovy for view in views]).repeat_interleave(lengths)
    return perspective_cameras(poses, fovy, times.tensor().repeat(len(views)), size)


def perspective_cameras(
    poses: Float[Tensor, "cameras 3 4"], fovy: Float[Tensor, " cameras"], times: Float[Tensor, " cameras"], size: int
) -> Cameras:
    """Nerfstudio's cameras for images of `size` x `size` pixels; `fovy` in degrees, `times` in [0, 1]."""
    focal = focal_length(fovy, size)[:, None]
    return Cameras(
        camera_to_worlds=poses,
        fx=focal,
        fy=focal,
        cx=size / 2,
        cy=size / 2,
        width=size,
        height=size,
        camera_type=CameraType.PERSPECTIVE,
        times=times[:, None],
    )


def object_box() -> Float[Tensor, "2 3"]:
    """The box in which every object is: its least and its greatest corner."""
    return torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])


def check_folders(data: Path, cameras: set[str]) -> None:
    """Every camera of meta.json has a folder of frames, and every `eval_*` folder a camera.

    Raises:
        InputError: One is missing.
    """
    for name in natsorted(cameras):
        if not (data / name).is_dir():
            raise InputError(f"{data / name} is missing though {data / 'meta.json'} has its camera: add its frames")
    for folder in natsorted(data.glob("eval_*")):
        if folder.is_dir() and folder.name not in cameras:
            raise InputError(f"{folder} has no camera in {data / 'meta.json'}: add the camera, or move the folder away")


def check_same_length(reference: FrameList, other: FrameList) -> None:
    """Frames are compared by their time, so all views need the same number of them.

    Raises:
        InputError: They differ.
    """
    if other.available != reference.available:
        raise InputError(
            f"{other.source} holds {other.available} frames but {reference.source} holds {reference.available}: "
            "give every view the same number of frames"
        )


def checked_image_size(size: int) -> int:
    """The size, if frames can be kept at it.

    Raises:
        InputError: It is out of range.
    """
    low, high = IMAGE_SIZES
    if not low <= size <= high:
        raise InputError(f"{OPTIONS}image-size is {size}: use a value from {low} to {high} pixels")
    return size


frame_sequence = DataParserSpecification(
    config=FrameSequenceDataParserConfig(),
    description="RGBA frames, or one animated file, of an object recorded by a fixed camera.",
)
