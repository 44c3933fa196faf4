"""Which files are the frames of a sequence, in which order, and when each was filmed; nothing is decoded.

Unlike the original, which counts all entries of a folder as frames, files that are not frames are skipped
(method.md section 11, quirk 10).
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from natsort import natsorted

from consistent4d_ns.data.files import reading
from consistent4d_ns.data.numbering import find_series
from consistent4d_ns.data.prepared import Prepared, read_prepared
from consistent4d_ns.data.stills import ANIMATION_TYPES, PLAIN_TYPES, STILL_TYPES, animation_spacing
from consistent4d_ns.data.times import Spacing
from consistent4d_ns.data.videos import VIDEO_TYPES, video_spacing
from consistent4d_ns.errors import InputError
from consistent4d_ns.files.outputs import check_whole

OPTIONS = "--pipeline.datamanager.dataparser."
"""What the options of the data parser begin with, for `ns-train`."""


@dataclass(frozen=True)
class FrameList:
    """The frames chosen from a folder or an animated file, by name only."""

    source: Path
    """Folder or animated file."""
    names: tuple[str, ...]
    """One name per chosen frame, in order of time; the frames of an animated file are named by their index."""
    indices: tuple[int, ...]
    """Position of each chosen frame among all frames of the source."""
    spacing: Spacing
    """When the frames of the source were filmed, chosen or not."""
    ignored: tuple[str, ...] = ()
    """Entries of the folder that are not frames."""
    premultiplied: bool = False
    """Whether the colours of the files are multiplied by alpha already."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def available(self) -> int:
        """Number of frames of the source."""
        return len(self.spacing.positions)

    @property
    def positions(self) -> tuple[float, ...]:
        """Position in time of each chosen frame, in mean steps of the source's frames (see `Spacing`)."""
        return tuple(self.spacing.positions[i] for i in self.indices)

    @property
    def paths(self) -> list[Path]:
        """One unique path per frame; for an animated file they do not exist on disk (`clip.webm/00012.png`)."""
        return [self.source / name for name in self.names]


def list_frames(
    path: Path | str,
    stride: int = 1,
    count: int | None = None,
    *,
    start: int = 0,
    premultiplied: bool = False,
    types: tuple[str, ...] = STILL_TYPES,
) -> FrameList:
    """Choose every `stride`-th frame of a folder or animated file from one on, the first `count` of them (all if None).

    Args:
        path: The folder or file.
        stride: Take every n-th frame.
        count: How many to take.
        start: Index of the first frame that is taken, from 0.
        premultiplied: Whether the colours of the files are multiplied by alpha.
        types: Suffixes of the files that can be frames of a folder, or a frame on their own.

    Raises:
        InputError: No such path, no frames in it, no numbering, a gap in it, an unknown or damaged file, or `stride`,
            `count` or `start` out of range.
    """
    path = Path(path)
    ignored: tuple[str, ...] = ()
    if path.is_dir():
        names, spacing, ignored = _folder_frames(path, types)
    elif path.is_file():
        spacing = _file_spacing(path, types)
        names = tuple(f"{i:05d}.png" for i in range(len(spacing.positions)))
    else:
        fault = "is neither a folder nor a file" if path.exists() else "does not exist"
        raise InputError(
            f"{path} {fault}: give a folder of RGBA frames, one animated file or, for consistent4d-image and "
            "consistent4d-image-mini, one image with --data"
        )
    indices = _choose(path, len(names), stride, count, start)
    return FrameList(path, tuple(names[i] for i in indices), tuple(indices), spacing, ignored, premultiplied)


def _folder_frames(folder: Path, types: tuple[str, ...]) -> tuple[tuple[str, ...], Spacing, tuple[str, ...]]:
    """Names of the frames of a folder in order of time, their spacing, and the names of all else in it."""
    check_whole(folder)
    with reading(folder):
        kinds = {entry.name: _may_be_frame(entry, types) for entry in folder.iterdir()}
    prepared = read_prepared(folder)
    entries = [name for name in natsorted(kinds) if prepared is None or name not in prepared.companions]
    images = [name for name in entries if kinds[name]]
    if not images:
        raise InputError(_no_frames(folder, types))
    series = find_series(str(folder), images)
    spacing = series.spacing if prepared is None else _prepared_spacing(folder, series.names, prepared)
    frames = set(series.names)
    return series.names, spacing, tuple(name for name in entries if name not in frames)


def _prepared_spacing(folder: Path, names: tuple[str, ...], prepared: Prepared) -> Spacing:
    """When the frames of a folder that `consistent4d prepare` wrote were filmed.

    Raises:
        InputError: There is a frame that it did not write.
    """
    unknown = [name for name in names if name not in prepared.seconds]
    if unknown:
        raise InputError(
            f"{folder} holds {unknown[0]}, which its prepare.json does not know: prepare the video again, or remove "
            "prepare.json, with which the frames lose their times"
        )
    seconds = [prepared.seconds[name] for name in names]
    rate = (len(names) - 1) / (seconds[-1] - seconds[0]) if len(names) > 1 else None
    return Spacing.from_stamps(seconds, rate)


def _no_frames(folder: Path, types: tuple[str, ...]) -> str:
    """What to say of a folder in which nothing can be a frame."""
    if types != STILL_TYPES:
        return f"{folder} holds no frames: give a video, or a folder of pictures (png, jpg, ...) that are numbered"
    if any(entry.suffix.lower() in PLAIN_TYPES for entry in folder.iterdir()):
        command = f"consistent4d prepare {shlex.quote(str(folder))} OUT"
        return f"{folder} holds pictures without alpha: cut the object out with `{command}`"
    return f"{folder} holds no frames: put PNG or WebP images with alpha there, or choose another --data"


def _may_be_frame(entry: Path, types: tuple[str, ...]) -> bool:
    """Whether an entry is an image file by its name, or a link to one; a broken link is reported when it is read."""
    if entry.name.startswith(".") or not entry.name.lower().endswith(types):
        return False
    return entry.is_file() or (entry.is_symlink() and not entry.exists())


def _file_spacing(path: Path, types: tuple[str, ...]) -> Spacing:
    """When the frames of an animated file are shown; a picture of one of the types has one."""
    kind = path.suffix.lower()
    if kind in VIDEO_TYPES:
        return video_spacing(path)
    if kind in ANIMATION_TYPES:
        return animation_spacing(path)
    if path.name.lower().endswith(types):
        return Spacing.even(1)
    if kind in PLAIN_TYPES:
        command = f"consistent4d prepare {shlex.quote(str(path))} OUT"
        raise InputError(f"{path} is a picture without alpha: cut the object out with `{command}`")
    raise InputError(
        f"{path} is of an unsupported type: give a folder of frames, "
        f"or one {', '.join(kind[1:] for kind in (*ANIMATION_TYPES, *VIDEO_TYPES))} file"
    )


def _choose(path: Path, available: int, stride: int, count: int | None, start: int) -> range:
    """Indices of the chosen frames."""
    if stride < 1:
        raise InputError(
            f"{OPTIONS}frame-stride is {stride}: use 1 for all frames of {path}, 2 for every second one, ..."
        )
    if count is not None and count < 1:
        raise InputError(
            f"{OPTIONS}frame-count is {count}: use at least 1, or leave it out to take all frames of {path}"
        )
    if not 0 <= start < available:
        last = f"use 0 to {available - 1}" if available > 1 else "leave it out"
        raise InputError(
            f"{OPTIONS}frame-start is {start}, but {path} holds {available} frames, counted from 0: {last}"
        )
    every = range(start, available, stride)
    if count is not None and count > len(every):
        begin = f" from frame {start} on" if start else ""
        raise InputError(
            f"{path} holds {available} frames, too few for {OPTIONS}frame-count {count} at a stride of {stride}"
            f"{begin}: give at most {len(every)}"
        )
    return every[:count]
