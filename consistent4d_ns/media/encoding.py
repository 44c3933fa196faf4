"""Pictures to files: H.264, VP9 with alpha, GIF, PNG frames.

FFmpeg's libraries come with PyAV, so no program is needed. Whatever the system refuses (a full disk, say) comes up as
OSError here, and in one line out of `outputs`.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from jaxtyping import UInt8

from consistent4d_ns.errors import InputError
from consistent4d_ns.outputs import new_file, new_folder

if TYPE_CHECKING:
    from PIL import Image

Format = Literal["mp4", "webm", "gif", "png"]
FORMATS: tuple[Format, ...] = get_args(Format)
"""H.264 on white; VP9 with alpha; GIF on white, which plays over and over; a folder of PNG frames with alpha."""
GIF_FPS = 50.0
"""Fastest GIF: browsers slow down shorter pauses than two hundredths of a second."""
PALETTE_SAMPLES = 16
"""Frames from which the colours of a GIF are chosen."""

Frame = UInt8[np.ndarray, "height width 4"]


@dataclass(frozen=True)
class Codec:
    """How a video is encoded."""

    name: str
    """FFmpeg's name of the encoder."""
    pixels: str
    """Pixel format; both halve the resolution of colours, so sides must be even."""
    alpha: bool
    """Whether it keeps alpha."""
    options: dict[str, str]
    """The encoder's options: visually lossless."""


CODECS = {
    "mp4": Codec("libx264", "yuv420p", False, {"crf": "17", "preset": "medium"}),
    "webm": Codec("libvpx-vp9", "yuva420p", True, {"crf": "20", "b": "0", "row-mt": "1", "cpu-used": "3"}),
}


def format_of(out: Path, asked: Format | None = None) -> Format:
    """The format that was asked for, else the one that the name stands for: a suffix, or none for a folder of PNG.

    Raises:
        InputError: The suffix is of no known format.
    """
    suffix = out.suffix.lower().removeprefix(".")
    if asked is not None:
        return asked
    if not suffix:
        return "png"
    if suffix == "png" or suffix not in FORMATS:
        raise InputError(
            f"{out} ends in {out.suffix}: use .mp4, .webm or .gif, a name without suffix for a folder of PNG frames, "
            "or say --format."
        )
    return suffix


def check_encodable(kind: Format, width: int, height: int, fps: float) -> None:
    """Raises: InputError: a format cannot have this size or speed."""
    if kind in CODECS and (width % 2 or height % 2):
        raise InputError(f"{kind} needs even sides, not {width} x {height}: give --size, or another --format.")
    if kind == "gif" and fps > GIF_FPS:
        raise InputError(f"a GIF plays at most {GIF_FPS:g} frames a second, not {fps:g}: give --fps, or use .mp4.")


def write_frames(out: Path, kind: Format, frames: Iterable[Frame], fps: float, overwrite: bool = False) -> None:
    """Write frames of one size, in order of time, whole or not at all.

    Args:
        out: File, or the folder of PNG frames (`00000.png`, ...).
        kind: Its format.
        frames: Straight RGBA; alpha is kept in webm and png, and composited on white in mp4 and gif.
        fps: Frames a second.
        overwrite: Replace what was written there earlier.

    Raises:
        InputError: `out` exists and `overwrite` is off, or cannot be written.
    """
    if kind == "png":
        with new_folder(out, overwrite) as folder:
            _write_png(folder, frames)
        return
    with new_file(out, overwrite) as file:
        if kind == "gif":
            _write_gif(file, frames, fps)
        else:
            _write_video(file, kind, CODECS[kind], frames, fps)


def on_white(frame: Frame) -> UInt8[np.ndarray, "height width 3"]:
    """Straight RGBA over white."""
    alpha = frame[..., 3:].astype(np.uint16)
    return ((frame[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def offer_ffmpeg() -> None:
    """Let this process find the `ffmpeg` program that comes with imageio-ffmpeg, if there is no other on the PATH.

    For `ns-render`, which looks for one of that name. The link goes when the process ends.
    """
    if shutil.which("ffmpeg"):
        return
    import imageio_ffmpeg

    folder = tempfile.mkdtemp(prefix="consistent4d-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        os.symlink(imageio_ffmpeg.get_ffmpeg_exe(), Path(folder) / "ffmpeg")
    except (OSError, RuntimeError):
        return  # No program for this platform, or no right to link: ns-render says then that it wants ffmpeg.
    os.environ["PATH"] = os.pathsep.join((os.environ.get("PATH", os.defpath), folder))


def _write_png(folder: Path, frames: Iterable[Frame]) -> None:
    from PIL import Image

    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{index:05d}.png")


def _write_video(file: Path, kind: str, codec: Codec, frames: Iterable[Frame], fps: float) -> None:
    import av

    with file.open("wb") as stream, av.open(stream, "w", format=kind) as container:
        video = container.add_stream(codec.name, rate=Fraction(fps).limit_denominator(1001), options=codec.options)
        video.pix_fmt = codec.pixels
        for index, frame in enumerate(frames):
            if index == 0:
                video.height, video.width = frame.shape[:2]
            picture, layout = (frame, "rgba") if codec.alpha else (on_white(frame), "rgb24")
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format=layout)))
        container.mux(video.encode())


def _write_gif(file: Path, frames: Iterable[Frame], fps: float) -> None:
    from PIL import Image

    images = [Image.fromarray(on_white(frame)) for frame in frames]
    # One palette for all frames: colours that change from frame to frame would flicker.
    palette = _palette(images[:: -(-len(images) // PALETTE_SAMPLES)])
    first, *rest = (image.quantize(palette=palette) for image in images)
    first.save(file, "GIF", save_all=True, append_images=rest, duration=list(_pauses(len(images), fps)), loop=0)


def _palette(samples: list[Image.Image]) -> Image.Image:
    """256 colours that suit all samples, one of them white, the background's."""
    from PIL import Image

    mosaic = Image.new("RGB", (samples[0].width, samples[0].height * len(samples)))
    for row, image in enumerate(samples):
        mosaic.paste(image, (0, row * image.height))
    palette = mosaic.quantize(256, Image.Quantize.MEDIANCUT)
    colours = np.array(palette.getpalette(), np.uint8).reshape(-1, 3)
    # Pillow looks for the nearest colour in steps of four levels: an almost white one would take white's place.
    colours[(colours >= 248).all(axis=1)] = 255
    palette.putpalette(colours.tobytes())
    return palette


def _pauses(count: int, fps: float) -> Iterator[int]:
    """Milliseconds that each of `count` frames is shown: whole hundredths of a second that add up to the right time."""
    ends = [round(100.0 * index / fps) for index in range(count + 1)]
    return (10 * (end - start) for start, end in pairwise(ends))
