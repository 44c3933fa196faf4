"""The chosen frames of a video, read again for each pass, so that no more than one is in memory at full size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from consistent4d_ns.data.files import by
from consistent4d_ns.data.listing import FrameList, list_frames
from consistent4d_ns.data.stills import PLAIN_TYPES, read_plain, read_plain_animation
from consistent4d_ns.data.videos import VIDEO_TYPES, has_alpha, read_plain_video, read_video
from consistent4d_ns.errors import InputError
from consistent4d_ns.preparing.options import SelectionOptions
from consistent4d_ns.preparing.selecting import choose, seconds_of


@dataclass(frozen=True)
class Clip:
    """Chosen frames of a video, an animation or a folder of pictures."""

    frames: FrameList
    """All frames."""
    indices: tuple[int, ...]
    """Which of them are chosen, increasing."""
    seconds: tuple[float, ...]
    """When each chosen frame is shown, in seconds since the first frame of the source."""
    alpha: bool
    """Whether the source has an alpha channel that is not opaque."""
    size: tuple[int, int]
    """Height and width of a frame, the right way up."""

    def __len__(self) -> int:
        return len(self.indices)

    def images(self) -> Iterator[UInt8[np.ndarray, "h w c"]]:
        """The chosen frames as straight RGBA where the source has alpha, else RGB.

        Raises:
            InputError: One is damaged, of another size than the first, or lacks alpha.
        """
        channels = 4 if self.alpha else 3
        for index, image in zip(self.indices, read_frames(self.frames, self.indices, self.alpha), strict=True):
            if image.shape[:2] != self.size:
                raise InputError(
                    f"frame {index} of {self.frames.source} is {by(image.shape[:2])} but the first chosen one is "
                    f"{by(self.size)}: give all frames one size"
                )
            if image.shape[2] < channels:
                raise InputError(
                    f"frame {index} of {self.frames.source} has no alpha channel, which others have: add it"
                )
            yield image[..., :channels]

    def only(self, places: Sequence[int]) -> Clip:
        """Some of the chosen frames, by their place among them."""
        return replace(
            self,
            indices=tuple(self.indices[i] for i in places),
            seconds=tuple(self.seconds[i] for i in places),
        )


def open_clip(source: Path, options: SelectionOptions, ending: str = "") -> Clip:
    """Choose frames of a source.

    Args:
        source: Folder or file.
        options: Which frames.
        ending: How the names of frames in a folder end, before the dot, where others lie beside them.

    Raises:
        InputError: It cannot be used, or has no frame in the time range.
    """
    frames = list_frames(source, types=tuple(ending + kind for kind in PLAIN_TYPES))
    seconds = seconds_of(frames.spacing)
    indices = choose(seconds, options, str(source))
    transparent = source.suffix.lower() in VIDEO_TYPES and not source.is_dir() and has_alpha(source)
    first = next(read_frames(frames, indices[:1], transparent))
    alpha = first.shape[2] == 4 and int(first[..., 3].min()) < 255
    return Clip(frames, indices, tuple(seconds[i] for i in indices), alpha, (first.shape[0], first.shape[1]))


def read_frames(frames: FrameList, indices: Sequence[int], alpha: bool) -> Iterator[UInt8[np.ndarray, "h w c"]]:
    """Frames of a source by their indices; of a video with alpha as straight RGBA where `alpha` is set, else as RGB."""
    source = frames.source
    if source.is_dir():
        return (read_plain(frames.paths[index]) for index in indices)
    if source.suffix.lower() in VIDEO_TYPES:
        return (read_video if alpha else read_plain_video)(source, indices)
    return read_plain_animation(source, indices)
