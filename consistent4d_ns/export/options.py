"""Options of the exports; imports nothing slow, so that help is shown immediately."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from consistent4d_ns.errors import InputError

MAX_FRAMES = 100_000
"""Largest number of exported times."""
Colouring = Literal["texture", "vertex"]
Format = Literal["glb", "obj", "ply"]
Topology = Literal["auto", "shared", "frames"]
MOST_SHARED_FACES = 200_000
"""Triangles up to which one mesh is fitted to all frames."""


@dataclass(frozen=True)
class SolidOptions:
    """What counts as the object."""

    resolution: int = 192
    """Cells along each side of the object's box on which the surface is extracted; 16 to 512."""
    density: float | None = None
    """Density from which on a point belongs to the object, in 1 / world unit; default: the one whose silhouettes
    agree best with those of the volume rendering."""
    opacity: float | None = None
    """Minimum opacity, in 0..1, of all lines of sight through a point inside the object, which carves thin fog away; 0
    carves nothing; default: as for --density."""
    min_part: float = 0.0
    """Leave out parts smaller than this share of the largest part's volume; the default keeps all, as the volume
    rendering shows them."""

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
    """How the surface is triangulated and textured."""

    faces: int = 10_000
    """Triangles of each mesh, if the surface has that many; 100 to 5 million."""
    texture_size: int = 512
    """Side of the texture in texels; 64 to 8192."""
    topology: Topology = "auto"
    """One mesh that moves (`shared`), or a mesh of its own for every frame (`frames`); `auto` takes one mesh if it
    comes close to the surface of every frame and looks like the volume render, else says so and writes a mesh per
    frame. What came of fitting one mesh is used again where the same one is asked for; to fit anew, delete
    `fitted_meshes` in the run's folder."""

    def check(self) -> None:
        """Raises: InputError: a value out of range."""
        in_range("--faces", self.faces, 100, 5_000_000)
        in_range("--texture-size", self.texture_size, 64, 8192)
        if self.topology == "shared" and self.faces > MOST_SHARED_FACES:
            raise InputError(
                f"--faces {self.faces}: one mesh for all frames has at most {MOST_SHARED_FACES}; give fewer, or "
                "--topology frames."
            )


def in_range(name: str, value: float, low: float, high: float) -> None:
    """Raises: InputError: an option's value is not between two others."""
    if not low <= value <= high:
        raise InputError(f"{name} {value:.10g}: give a value from {low:.10g} to {high:.10g}.")


def spread_moments(count: int, most: int) -> list[int]:
    """Indices of at most `most` moments out of `count`, evenly spread from the first to the last."""
    import numpy as np

    return sorted(set(np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()))


@dataclass(frozen=True)
class TimedFrame:
    """One frame of the output."""

    index: int
    """Its number, from 0."""
    time: float
    """Time in [0, 1]: 0 is the first frame of the source, 1 its last."""

    def __str__(self) -> str:
        return f"frame {self.index} (time {self.time:.4g})"


@dataclass(frozen=True)
class Timeline:
    """All frames of the output."""

    times: tuple[float, ...]
    """Time in [0, 1] of each frame."""
    fps: float
    """Frames per second."""

    def __iter__(self) -> Iterator[TimedFrame]:
        return (TimedFrame(index, time) for index, time in enumerate(self.times))

    def __len__(self) -> int:
        return len(self.times)

    @property
    def is_still(self) -> bool:
        """Whether all frames are of the same time."""
        return len(set(self.times)) == 1


@dataclass(frozen=True)
class TimeOptions:
    """Which times are exported."""

    times: tuple[float, ...] | None = None
    """Times from 0, the first frame, to 1, the last, in the order in which they are played; default: evenly spaced, as
    many as the input has frames."""
    frames: int | None = None
    """This many evenly spaced times instead."""
    fps: float | None = None
    """Frames per second; default: the input's, or with --frames so that the whole takes as long as the input."""

    def check(self) -> None:
        """Raises: InputError: values out of range, or that contradict each other."""
        from consistent4d_ns.data.times import check_times, checked_fps

        if self.times is not None and self.frames is not None:
            raise InputError("--times and --frames both choose the times: give one of them.")
        if self.times is not None and not self.times:
            raise InputError("--times names no time: give at least one, from 0 to 1.")
        check_times(self.times or (), "--times")
        if self.frames is not None:
            in_range("--frames", self.frames, 1, MAX_FRAMES)
        if self.fps is not None:
            checked_fps(self.fps)

    def choose(self, input_frames: int, input_fps: float) -> Timeline:
        """The frames to export for an input of this many frames."""
        if self.times is not None:
            return Timeline(self.times, self.fps or input_fps)
        count = self.frames or input_frames
        # In double precision: `even_times` would be written to files as 0.20000000298.
        times = tuple(index / max(1, count - 1) for index in range(count))
        return Timeline(times, self.fps or input_fps * count / input_frames)
