"""Masks from files: a folder of images or arrays, or a video, one mask for each frame of the source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from natsort import natsorted

from consistent4d_ns.data.files import check_not_empty, reading
from consistent4d_ns.data.listing import list_frames
from consistent4d_ns.data.stills import ANIMATION_TYPES, read_index
from consistent4d_ns.data.videos import VIDEO_TYPES
from consistent4d_ns.errors import InputError
from consistent4d_ns.preparing.clip import Clip, read_frames
from consistent4d_ns.preparing.layouts import MASK_TYPES
from consistent4d_ns.preparing.objects import Hint, most_frequent

MOST_OBJECTS = 64
"""Largest value in masks up to which values are numbers of objects; in brighter ones they are brightness."""


@dataclass(frozen=True)
class Masks:
    """One mask for each chosen frame."""

    source: Path
    """Folder or video."""
    paths: tuple[Path, ...]
    """The files of the chosen frames; none for a video."""
    indices: tuple[int, ...]
    """The frames of a mask video that are used; none for a folder."""

    def read(self) -> Iterator[UInt8[np.ndarray, "h w"]]:
        """The masks: numbers of objects, or brightness.

        Raises:
            InputError: One is damaged.
        """
        if self.paths:
            return (_read_array(path) if path.suffix == ".npy" else read_index(path) for path in self.paths)
        frames = list_frames(self.source)
        return (image[..., :3].max(axis=-1) for image in read_frames(frames, self.indices, alpha=False))

    def only(self, places: Sequence[int]) -> Masks:
        """Those of some of the chosen frames."""
        some = tuple(self.paths[i] for i in places) if self.paths else ()
        return Masks(self.source, some, tuple(self.indices[i] for i in places) if self.indices else ())


def open_masks(source: Path, clip: Clip) -> Masks:
    """The masks of the chosen frames of a clip.

    Files are matched by the frames' names, or by their order where there are as many masks as frames of the source.

    Raises:
        InputError: There are no masks, or a frame has none.
    """
    if not source.exists():
        raise InputError(f"{source} does not exist: give a folder of masks, or a mask video, with --masks")
    if not source.is_dir():
        return _mask_video(source, clip)
    files = natsorted(path for path in source.iterdir() if path.suffix.lower() in MASK_TYPES and path.name[0] != ".")
    if not files:
        raise InputError(f"{source} holds no masks: give a folder of images, one for each frame")
    by_stem = {path.stem: path for path in files}
    stems = [Path(clip.frames.names[i]).stem for i in clip.indices]
    if clip.frames.source.is_dir() and all(stem in by_stem for stem in stems):
        return Masks(source, tuple(by_stem[stem] for stem in stems), ())
    if len(files) != clip.frames.available:
        raise InputError(
            f"{source} holds {len(files)} masks but {clip.frames.source} {clip.frames.available} frames: "
            "give one mask for each frame, in their order or of the same names"
        )
    return Masks(source, tuple(files[i] for i in clip.indices), ())


def _mask_video(source: Path, clip: Clip) -> Masks:
    """Raises: InputError: it is no video, or has another number of frames than the source."""
    if source.suffix.lower() not in (*VIDEO_TYPES, *ANIMATION_TYPES):
        raise InputError(f"{source} is neither a folder nor a video: give one mask for each frame with --masks")
    available = list_frames(source).available
    if available != clip.frames.available:
        raise InputError(
            f"{source} has {available} frames but {clip.frames.source} {clip.frames.available}: "
            "give one mask for each frame"
        )
    return Masks(source, (), clip.indices)


def _read_array(path: Path) -> UInt8[np.ndarray, "h w"]:
    """An array of numbers of objects; no code in it is run."""
    check_not_empty(path)
    with reading(path):
        array = np.load(path, allow_pickle=False)
    if array.ndim != 2 or array.dtype.kind not in "bui" or array.size == 0 or array.min() < 0 or array.max() > 255:
        raise InputError(f"{path} is no mask: an array of height x width with numbers from 0 to 255 is needed")
    return array.astype(np.uint8)


def are_numbered(masks: Sequence[UInt8[np.ndarray, "h w"]]) -> bool:
    """Whether values are numbers of objects, and not brightness."""
    return max(int(mask.max()) for mask in masks) <= MOST_OBJECTS


def chosen_number(masks: Sequence[UInt8[np.ndarray, "h w"]], number: int | None, hint: Hint, source: Path) -> int:
    """The number of the object that is meant: the one asked for, the one that is hinted at, or the largest one.

    Args:
        masks: Numbers of objects, one array per frame.
        number: The number asked for.
        hint: Where it is in the first mask.
        source: Where the masks come from, for messages.

    Raises:
        InputError: There is no such object.
    """
    areas = np.sum([np.bincount(mask.ravel(), minlength=256) for mask in masks], axis=0)
    present = [value for value in range(1, 256) if areas[value]]
    region = hint.region(masks[0].shape)
    if not present:
        raise InputError(f"{source} marks no object in any chosen frame: give other masks")
    if region is not None:
        number = most_frequent(masks[0][region])
        if not number:
            raise InputError(f"{source} has no object {hint.place} in the first chosen frame: give another place")
    if number is None:
        return max(present, key=lambda value: areas[value])
    if number not in present:
        known = ", ".join(map(str, present))
        raise InputError(f"{source} has no object {number} (there are {known}): give another --object")
    return number
