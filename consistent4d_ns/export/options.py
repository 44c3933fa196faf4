"""What can be chosen: small classes that import nothing heavy, so that help texts come at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from consistent4d_ns.errors import InputError

Colouring = Literal["texture", "vertex"]
Format = Literal["glb", "obj", "ply"]


@dataclass(frozen=True)
class SolidOptions:
    """What counts as the object."""

    resolution: int = 192
    """Cells along each side of the object's box in which the surface is looked for; 16 to 512."""
    density: float | None = None
    """Least density inside the object, in 1 / world unit; default: silhouettes agree best with the volume render's."""
    opacity: float | None = None
    """Least opacity, in 0..1, of the lines through a point inside the object, which carves thin fog away; 0 carves
    nothing; default: as for --density."""
    min_part: float = 0.0
    """Leave out parts smaller than this share of the largest part's volume; the default keeps all, as volume renders
    show them."""

    def check(self) -> None:
        """Raises: InputError: a value out of range."""
        in_range("--resolution", self.resolution, 16, 512)
        in_range("--min-part", self.min_part, 0.0, 1.0)
        if self.density is not None and not 0.0 < self.density < math.inf:
            raise InputError(f"--density {self.density:g}: give a density above 0.")
        if self.opacity is not None and not 0.0 <= self.opacity < 1.0:
            raise InputError(f"--opacity {self.opacity:g}: give at least 0 and less than 1.")


@dataclass(frozen=True)
class MeshOptions:
    """How the object is made into triangles."""

    faces: int = 10_000
    """Triangles of each mesh, where the surface has as many; 100 to 5 million."""
    texture_size: int = 512
    """Side of the texture in texels; 64 to 8192."""

    def check(self) -> None:
        """Raises: InputError: a value out of range."""
        in_range("--faces", self.faces, 100, 5_000_000)
        in_range("--texture-size", self.texture_size, 64, 8192)


def in_range(name: str, value: float, low: float, high: float) -> None:
    """Raises: InputError: an option's value is not between two others."""
    if not low <= value <= high:
        raise InputError(f"{name} {value:g}: give a value from {low:g} to {high:g}.")


@dataclass(frozen=True)
class Moment:
    """One frame of what is written."""

    frame: int
    """Its number, from 0."""
    time: float
    """Time in [0, 1]: 0 is the first frame of the source, 1 its last."""

    def __str__(self) -> str:
        return f"frame {self.frame} (time {self.time:.4g})"


@dataclass(frozen=True)
class Moments:
    """All frames of what is written."""

    times: tuple[float, ...]
    """Time in [0, 1] of each frame."""
    fps: float
    """Frames a second."""

    def __iter__(self) -> Iterator[Moment]:
        return (Moment(frame, time) for frame, time in enumerate(self.times))

    def __len__(self) -> int:
        return len(self.times)


@dataclass(frozen=True)
class MomentOptions:
    """Which moments."""

    times: tuple[float, ...] | None = None
    """Moments in 0..1, in the order in which they are played; default: those of the source's frames."""
    frames: int | None = None
    """This many moments instead, evenly spread."""
    fps: float | None = None
    """Frames a second; default: the source's, or with --frames so that the whole takes as long as the source."""

    def check(self) -> None:
        """Raises: InputError: values out of range, or that contradict each other."""
        from consistent4d_ns.data.times import check_times, checked_fps

        if self.times is not None and self.frames is not None:
            raise InputError("--times and --frames both name the moments: give one of them.")
        if self.times is not None and not self.times:
            raise InputError("--times names no moment: give at least one, from 0 to 1.")
        check_times(self.times or (), "--times")
        if self.frames is not None and self.frames < 1:
            raise InputError(f"--frames {self.frames}: give at least 1.")
        if self.fps is not None:
            checked_fps(self.fps)

    def choose(self, source_frames: int, source_fps: float) -> Moments:
        """The moments for a source of this many frames."""
        from consistent4d_ns.data.times import even_times

        if self.times is not None:
            return Moments(self.times, self.fps or source_fps)
        count = self.frames or source_frames
        return Moments(tuple(even_times(count).tolist()), self.fps or source_fps * count / source_frames)
