"""What can be asked of `consistent4d prepare`; imports nothing slow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from consistent4d_ns.errors import InputError

MOST_FRAMES = 1000
"""Most frames that can be chosen; each takes up to 3 MB of memory."""
SIZES = (32, 2048)
"""Accepted sides of the frames in pixels."""
DEFAULT_SEGMENTER = "u2netp"
"""The segmentation network that comes with the extra `prepare`."""


@dataclass(frozen=True)
class SelectionOptions:
    """Which frames to take."""

    start: float | None = None
    """Seconds of the video at which to start; default: its beginning."""
    end: float | None = None
    """Seconds of the video at which to end; default: its end."""
    frames: int = 32
    """Number of frames, evenly spaced in time; all there are where the video has fewer."""
    fps: float | None = None
    """Frames per second to take, in place of a number of frames."""

    def check(self) -> None:
        """Raises: InputError: a value is out of range."""
        if not 1 <= self.frames <= MOST_FRAMES:
            raise InputError(f"--frames is {self.frames}: use a number from 1 to {MOST_FRAMES}.")
        for name, value in (("start", self.start), ("end", self.end)):
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise InputError(f"--{name} is {value:g}: give seconds since the beginning of the video, at least 0.")
        if self.fps is not None:
            from consistent4d_ns.data.times import LEAST_FPS, checked_fps

            checked_fps(self.fps, least=LEAST_FPS)
        if self.start is not None and self.end is not None and self.end <= self.start:
            raise InputError(f"--end is {self.end:g}, not after --start {self.start:g}: give a later time.")


@dataclass(frozen=True)
class ObjectOptions:
    """What the object is."""

    masks: Path | None = None
    """Folder of masks, or mask video, as long as the input: bright where the object is, or numbers of objects."""
    object: int | None = None
    """Number of the object in masks that number several; default: the largest one."""
    key: str | None = None
    """Colour of the background to key out, such as `#00ff00` or `lime`."""
    segmenter: str = DEFAULT_SEGMENTER
    """Network that finds the object where neither alpha, masks nor key do: the one of the extra `prepare`, or one of
    rembg's, such as `isnet-general-use`, which rembg downloads."""
    threshold: float = 0.5
    """How sure the network must be that something belongs to the object, 0.05 to 0.95: lower keeps more."""
    point: tuple[float, float] | None = None
    """A point of the object: x and y in pixels of the first chosen frame; default: the largest object."""
    box: tuple[float, float, float, float] | None = None
    """A box around the object: left, top, right and bottom in pixels of the first chosen frame."""

    def check(self) -> None:
        """Raises: InputError: a value is out of range, or options exclude each other."""
        if not 0.05 <= self.threshold <= 0.95:
            raise InputError(f"--threshold is {self.threshold:g}: use a number from 0.05 to 0.95.")
        if self.masks is not None and self.key is not None:
            raise InputError("--masks and --key both say where the object is: give one of them.")
        meant = {"point": self.point, "box": self.box, "object": self.object}
        given = [f"--{name}" for name, value in meant.items() if value is not None]
        if len(given) > 1:
            raise InputError(f"{' and '.join(given)} say which object is meant: give one of them.")
        if self.box is not None and not (self.box[0] < self.box[2] and self.box[1] < self.box[3]):
            raise InputError("--box is left, top, right and bottom in pixels: right has to exceed left, bottom top.")
        if self.object is not None and self.object < 1:
            raise InputError(f"--object is {self.object}: objects in masks are numbered from 1.")

    def check_inside(self, size: tuple[int, int]) -> None:
        """Raises: InputError: a point, or all of a box, lies outside of frames of this height and width."""
        height, width = size
        where = f"outside of the frames, which are {width} x {height} pixels"
        if self.point is not None and not (0 <= self.point[0] < width and 0 <= self.point[1] < height):
            raise InputError(f"--point lies {where}: give x and y in the pixels of the first chosen one.")
        if self.box is not None:
            left, top, right, bottom = self.box
            if not (left < width and top < height and right > 0 and bottom > 0):
                raise InputError(f"--box lies {where}: give left, top, right and bottom in the first chosen one.")


@dataclass(frozen=True)
class PictureOptions:
    """What is written."""

    size: int = 512
    """Side of the frames in pixels, 32 to 2048; smaller where the video shows the object in fewer pixels."""
    fill: float = 0.8
    """Share of the side that the object fills where it is largest, 0.3 to 1."""
    shift: tuple[float, float] = (0.0, 0.0)
    """Moves the object in the crop to the right and down, as shares of its side, -0.5 to 0.5."""
    crop: Literal["auto", "fixed", "moving"] = "auto"
    """Whether the crop follows the object on a smooth track: `auto` does so for an object that wanders."""
    elevation: float | Literal["auto"] | None = None
    """Degrees of the camera above the object, -90 to 90: training then takes it from the frames. `auto`: the bundled
    prior estimates it, to about 8 degrees."""

    def check(self) -> None:
        """Raises: InputError: a value is out of range."""
        if not SIZES[0] <= self.size <= SIZES[1]:
            raise InputError(f"--size is {self.size}: use a number of pixels from {SIZES[0]} to {SIZES[1]}.")
        if not 0.3 <= self.fill <= 1:
            raise InputError(f"--fill is {self.fill:g}: use a share from 0.3 to 1.")
        if not all(-0.5 <= value <= 0.5 for value in self.shift):
            raise InputError("--shift is out of range: give two shares of the side from -0.5 to 0.5.")
        if isinstance(self.elevation, float | int) and not -90 <= self.elevation <= 90:
            raise InputError(f"--elevation is {self.elevation:g}: use degrees from -90 to 90, or auto.")


@dataclass(frozen=True)
class PrepareOptions:
    """All options."""

    selection: SelectionOptions = SelectionOptions()
    """Which frames to take."""
    object: ObjectOptions = ObjectOptions()
    """What the object is."""
    picture: PictureOptions = PictureOptions()
    """What is written."""

    def check(self) -> None:
        """Raises: InputError: a value is out of range."""
        self.selection.check()
        self.object.check()
        self.picture.check()
