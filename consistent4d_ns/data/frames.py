"""Read a segmented video: list its frames, decode them, fit them to a square (method.md section 2).

Unlike the original, frames keep their aspect ratio (quirk 3), are resized with premultiplied alpha so that the colours
of transparent pixels do not bleed into the edge (quirk 4), keep a soft mask (quirk 5), end at time 1 (quirk 2), and
files that are not frames are left out (quirk 10).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float16, Float32, Shaped, UInt8
from natsort import natsorted
from PIL import Image
from torch import Tensor

from consistent4d_ns.data.images import MAX_SIDE, premultiply, resize_area, square_pad
from consistent4d_ns.errors import InputError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame

STILL_TYPES = (".png", ".webp")
"""Files that count as frames in a folder."""
ANIMATION_TYPES = (".gif", ".apng", ".png", ".webp")
"""Animated images with alpha, read by Pillow."""
VIDEO_TYPES = (".webm", ".mov")
"""Videos with alpha, read by FFmpeg."""
FAINT = 0.02
"""Alpha this close to 0 or 1 counts as 0 or 1 when a frame is judged empty or opaque: lossy videos are not exact."""


@dataclass(frozen=True)
class FrameList:
    """The frames chosen from a folder or an animated file, by name only: nothing is decoded."""

    source: Path
    """Folder or animated file."""
    names: tuple[str, ...]
    """One name per chosen frame, in order of time; the frames of an animated file are named by their index."""
    indices: tuple[int, ...]
    """Position of each chosen frame among all frames of the source."""
    available: int
    """Number of frames the source holds."""
    ignored: tuple[str, ...] = ()
    """Entries of the folder that are not frames."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def paths(self) -> list[Path]:
        """One unique path per frame; for an animated file they do not exist on disk (`clip.webm/00012.png`)."""
        return [self.source / name for name in self.names]


def list_frames(path: Path | str, stride: int = 1, count: int | None = None) -> FrameList:
    """Choose every `stride`-th frame of a folder or animated file, the first `count` of them (all if None).

    Raises:
        InputError: No such path, no frames in it, unknown file type, a gap in the numbering, or `stride` or `count` out
            of range.
    """
    path = Path(path)
    if path.is_dir():
        names, ignored = _frame_files(path)
    elif path.is_file():
        names, ignored = [f"{i:05d}.png" for i in range(_count_frames(path))], []
    else:
        raise InputError(f"{path} does not exist: give a folder of RGBA frames or one animated file with --data")
    indices = _choose(path, len(names), stride, count)
    return FrameList(path, tuple(names[i] for i in indices), tuple(indices), len(names), tuple(ignored))


def frame_rate(path: Path) -> float | None:
    """Frames a second of an animated file, as it says itself; None for a folder, a still image, or a file that is mute.

    Raises:
        InputError: The file is damaged.
    """
    if path.is_dir():
        return None
    if path.suffix.lower() in VIDEO_TYPES:
        with _open_video(path) as video:
            return float(video.streams.video[0].average_rate or 0) or None
    with _open_image(path) as image:
        milliseconds = _duration(image, path)
    return 1000.0 / milliseconds if milliseconds else None


def decode_frames(frames: FrameList, image_size: int) -> Float16[Tensor, "frames 4 size size"]:
    """Decode the chosen frames into premultiplied RGBA in [0, 1], each padded to a square and resized to `image_size`.

    float16 is within 2^-12 of the exact value, a sixteenth of an 8-bit step.

    Raises:
        InputError: A frame is damaged, too large, of another size than the first, without alpha, empty or opaque.
    """
    decoded = torch.empty(len(frames), 4, image_size, image_size, dtype=torch.float16)
    first: tuple[int, int] | None = None
    for i, (size, image) in enumerate(_fitted_frames(frames, image_size)):
        first = first or size
        if size != first:
            raise InputError(
                f"{frames.paths[i]} is {_by(size)} but {frames.paths[0].name} is {_by(first)}: give all frames one size"
            )
        decoded[i] = torch.from_numpy(image).permute(2, 0, 1)
    return decoded


def _frame_files(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the frames of a folder in natural order, and of all that is not a frame."""
    entries = natsorted(entry.name for entry in folder.iterdir())
    names = [name for name in entries if name.lower().endswith(STILL_TYPES) and not name.startswith(".")]
    if not names:
        raise InputError(f"{folder} holds no frames: put PNG or WebP images with alpha there, or choose another --data")
    _check_numbering(folder, names)
    return names, [name for name in entries if name not in set(names)]


def _check_numbering(folder: Path, names: list[str]) -> None:
    """Where all names differ in one number only, that number has to count up by one."""
    parts = [re.fullmatch(r"(.*?)(\d+)(\D*)", Path(name).stem) for name in names]
    if len({part and part.group(1, 3) for part in parts}) != 1 or parts[0] is None:
        return
    numbered = sorted((int(part.group(2)), name) for part, name in zip(parts, names) if part)
    for (number, name), (following, next_name) in pairwise(numbered):
        if following == number:
            raise InputError(f"{folder} holds frame {number} twice ({name}, {next_name}): remove one of them")
        if following > number + 1:
            raise InputError(
                f"{folder} lacks frame {number + 1} (between {name} and {next_name}): add it or renumber the frames"
            )


def _choose(path: Path, available: int, stride: int, count: int | None) -> range:
    """Indices of the chosen frames."""
    if stride < 1:
        raise InputError(f"frame_stride is {stride}: use 1 for all frames of {path}, 2 for every second one, ...")
    if count is not None and count < 1:
        raise InputError(f"frame_count is {count}: use at least 1, or leave it out to take all frames of {path}")
    every = range(0, available, stride)
    if count is not None and count > len(every):
        raise InputError(
            f"{path} holds {available} frames, too few for frame_count {count} at frame_stride {stride}: "
            f"use a frame_count of at most {len(every)}"
        )
    return every[:count]


def _count_frames(path: Path) -> int:
    """Number of frames of an animated file, without decoding them."""
    kind = path.suffix.lower()
    if kind in VIDEO_TYPES:
        with _open_video(path) as video:
            count = _count_packets(video, path)
    elif kind in ANIMATION_TYPES:
        with _open_image(path) as image, _reading(path):
            count = getattr(image, "n_frames", 1)
    else:
        raise InputError(
            f"{path} is of an unsupported type: give a folder of PNG or WebP frames, "
            f"or one {', '.join(kind[1:] for kind in (*ANIMATION_TYPES, *VIDEO_TYPES))} file with alpha"
        )
    if count < 1:
        raise InputError(f"{path} holds no frames: export it again")
    return count


def _duration(image: Image.Image, path: Path) -> float:
    """Mean time in milliseconds that a frame of an animation is shown; 0 where it does not say."""
    durations = []
    for index in range(getattr(image, "n_frames", 1)):
        with _reading(path):
            image.seek(index)
            image.load()  # WebP tells only then.
        durations.append(float(image.info.get("duration", 0)))
    return sum(durations) / len(durations)


def _count_packets(video: InputContainer, path: Path) -> int:
    """Number of frames of a video; a WebM that ends too early is only told by its announced duration."""
    stream = video.streams.video[0]
    with _reading(path):
        starts = sorted(float(p.pts * p.time_base) for p in video.demux(stream) if p.size and p.pts is not None)
    if video.duration and len(video.streams) == 1 and starts:
        announced = video.duration * 1e-6
        longest = max((b - a for a, b in pairwise(starts)), default=1 / float(stream.average_rate or 1))
        if announced - starts[-1] > 1.5 * longest:
            raise InputError(
                f"{path} is cut short: {announced:g} s are announced but the last frame starts at {starts[-1]:g} s; "
                "export or copy it again, or give a folder of frames"
            )
    return len(starts)


def _fitted_frames(
    frames: FrameList, image_size: int
) -> Iterator[tuple[tuple[int, int], Float32[np.ndarray, "size size 4"]]]:
    """Original (height, width) and fitted image of each frame."""
    fit = partial(_fit, image_size=image_size)
    if frames.source.is_dir():
        with ThreadPoolExecutor(max_workers=4) as pool:  # Each holds one frame at full size: up to 2 GB at 8192 x 8192.
            yield from pool.map(lambda path: fit(_read_still(path), str(path)), frames.paths)
    else:
        video = frames.source.suffix.lower() in VIDEO_TYPES
        images = _read_video(frames) if video else _read_animation(frames)
        for index, image in zip(frames.indices, images):
            yield fit(image, f"{frames.source} (frame {index})")


def _fit(
    rgba: Shaped[np.ndarray, "h w 4"], where: str, image_size: int
) -> tuple[tuple[int, int], Float32[np.ndarray, "size size 4"]]:
    """Check a straight RGBA image; premultiply, pad and resize it."""
    image = premultiply(rgba)
    if image[..., 3].max() < FAINT:
        raise InputError(f"{where} is fully transparent: remove this frame, or segment it again")
    if image[..., 3].min() > 1 - FAINT:
        raise InputError(f"{where} is fully opaque, its background was not removed: segment the object first")
    height, width = rgba.shape[:2]
    return (height, width), resize_area(square_pad(image), image_size)


def _read_still(path: Path) -> Shaped[np.ndarray, "h w 4"]:
    """One image file as straight RGBA of its own depth (8 or 16 bit)."""
    with _open_image(path) as image:
        if getattr(image, "n_frames", 1) > 1:
            raise InputError(f"{path} is an animation inside a folder of frames: give the file itself with --data")
        rgba = _to_rgba(image, path, str(path))  # Also finds damage, over which OpenCV passes in silence.
    return _read_16_bit(path) if _is_16_bit(path) else rgba


def _read_animation(frames: FrameList) -> Iterator[UInt8[np.ndarray, "h w 4"]]:
    """The chosen frames of an animated image as straight RGBA."""
    with _open_image(frames.source) as image:
        for index in frames.indices:
            with _reading(frames.source):
                image.seek(index)
            yield _to_rgba(image, frames.source, f"{frames.source} (frame {index})")


def _read_video(frames: FrameList) -> Iterator[UInt8[np.ndarray, "h w 4"]]:
    """The chosen frames of a video as straight RGBA."""
    wanted = set(frames.indices)
    found = 0
    with _open_video(frames.source) as video, _reading(frames.source):
        for index, frame in enumerate(_decode_video(video)):
            if index in wanted:
                found += 1
                yield _video_rgba(frame, frames.source)
            if found == len(wanted):
                return
    raise InputError(f"{frames.source} breaks off after {found} of {len(wanted)} frames: export it again")


def _decode_video(video: InputContainer) -> Iterator[VideoFrame]:
    """All frames of the first video stream."""
    from av.codec.context import CodecContext

    stream = video.streams.video[0]
    # FFmpeg's own VP8 and VP9 decoders drop the alpha plane, libvpx keeps it.
    libvpx = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(stream.codec_context.name)
    decoder = CodecContext.create(libvpx, "r") if libvpx else stream.codec_context
    for packet in video.demux(stream):
        yield from decoder.decode(packet)  # type: ignore[misc]


def _video_rgba(frame: VideoFrame, path: Path) -> UInt8[np.ndarray, "h w 4"]:
    """A video frame as straight RGBA."""
    if not any(component.is_alpha for component in frame.format.components):
        raise InputError(f"{path} has no alpha channel: remove the background and export with alpha")
    return frame.to_ndarray(format="rgba")


def _to_rgba(image: Image.Image, path: Path, where: str) -> UInt8[np.ndarray, "h w 4"]:
    """The current frame of an open image as straight 8-bit RGBA."""
    with _reading(path):
        image.load()
    if not image.has_transparency_data:
        raise InputError(f"{where} has no alpha channel: remove the background and save it as RGBA")
    return np.asarray(image.convert("RGBA"))


def _is_16_bit(path: Path) -> bool:
    """Whether this is a 16-bit PNG with alpha, of which Pillow keeps 8 bits only."""
    with path.open("rb") as file:
        header = file.read(26)
    # Bit depth and colour type are bytes 24 and 25; types 4 and 6 are grey and RGB with alpha.
    return header.startswith(b"\x89PNG") and header[24] == 16 and header[25] in (4, 6)


def _read_16_bit(path: Path) -> Shaped[np.ndarray, "h w 4"]:
    """A 16-bit PNG with alpha as straight RGBA."""
    import cv2

    return cv2.cvtColor(cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)


def _open_image(path: Path) -> Image.Image:
    """Open an image of acceptable size; its pixels are not decoded yet."""
    _check_not_empty(path)
    try:
        with _reading(path):
            image = Image.open(path)
    except Image.DecompressionBombError:
        raise InputError(f"{path} is far too large: scale it down to at most {MAX_SIDE} pixels a side") from None
    _check_side(path, image.height, image.width)
    return image


def _open_video(path: Path) -> InputContainer:
    """Open a video of acceptable size."""
    import av

    _check_not_empty(path)
    with _reading(path):
        video = av.open(str(path))
    if not video.streams.video:
        raise InputError(f"{path} holds no video: export it again")
    _check_side(path, video.streams.video[0].height, video.streams.video[0].width)
    return video


def _check_not_empty(path: Path) -> None:
    """Zero bytes are the trace of a failed copy."""
    if path.stat().st_size == 0:
        raise InputError(f"{path} is an empty file (zero bytes): export or copy it again")


def _check_side(path: Path, height: int, width: int) -> None:
    """Refuse images that would fill the memory."""
    if max(height, width) > MAX_SIDE:
        size = _by((height, width))
        raise InputError(f"{path} is {size}: scale it down to at most {MAX_SIDE} pixels a side")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Report whatever a decoder raises as a damaged file.

    Decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error, IndexError, FFmpeg's own errors and more
    over damaged files, so every exception is taken for one.
    """
    try:
        yield
    except (InputError, Image.DecompressionBombError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} is damaged or cut short ({reason}): export or copy it again") from error


def _by(size: tuple[int, int]) -> str:
    """(height, width) in words: 'width x height'."""
    return f"{size[1]}x{size[0]}"
