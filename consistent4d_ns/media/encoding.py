"""Writes frames to files: H.264, VP9 with alpha, GIF, PNG.

PyAV ships FFmpeg's libraries, so no `ffmpeg` executable is needed. Errors of the system (a full disk, say) are raised
as OSError here; `outputs` turns them into one line.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from jaxtyping import UInt8

from consistent4d_ns.errors import InputError
from consistent4d_ns.files.outputs import check_new_file, check_new_folder, new_file, new_folder

if TYPE_CHECKING:
    from av import VideoFrame
    from av.video.codeccontext import VideoCodecContext
    from PIL import Image

Format = Literal["mp4", "webm", "gif", "png"]
COMMAND = "render"
"""The subcommand that writes folders of frames, and replaces no others."""
FORMATS: tuple[Format, ...] = get_args(Format)
"""H.264 on white; VP9 with alpha; looping GIF on white; a folder of PNG frames with alpha."""
GIF_FPS = 50.0
"""Highest frame rate of a GIF: browsers slow down frames shorter than two hundredths of a second."""
MAX_PIXELS = 2**27
"""Most pixels of a frame: two images of 8192 x 8192 side by side. In memory a frame has 4 bytes for each."""
CENTISECOND = 10
"""Milliseconds of the unit in which a GIF says how long a frame is shown."""
PALETTE_SAMPLES = 16
"""Frames from which the palette of a GIF is computed."""
BT709 = 1
"""BT.709 as colour matrix, primaries and transfer function (ITU-T H.273)."""

Frame = UInt8[np.ndarray, "height width 4"]


@dataclass(frozen=True)
class Codec:
    """How a video is encoded."""

    name: str
    """FFmpeg's name of the encoder."""
    pixel_format: str
    """FFmpeg's name of the pixel format; chroma is subsampled 2 x 2, so sides must be even."""
    has_alpha: bool
    """Whether alpha is kept."""
    options: dict[str, str]
    """Encoder options, chosen to be visually lossless."""
    container: dict[str, str]
    """Options of the container."""


CODECS = {
    # Fast start: the index comes before the frames, so that a web page can play the file while it loads.
    "mp4": Codec("libx264", "yuv420p", False, {"crf": "17", "preset": "medium"}, {"movflags": "+faststart"}),
    "webm": Codec("libvpx-vp9", "yuva420p", True, {"crf": "20", "b": "0", "row-mt": "1", "cpu-used": "3"}, {}),
}


def format_of(out: Path, requested: Format | None = None) -> Format:
    """The requested format, else that of the suffix; a name without a suffix is a folder of PNG frames.

    Raises:
        InputError: The suffix belongs to no known format, or to another one than the requested one.
    """
    suffix = out.suffix.lower().removeprefix(".")
    if requested not in (None, "png", suffix) and suffix in FORMATS:
        raise InputError(f"{out} ends in {out.suffix}, and --format is {requested}: leave out one of them.")
    if requested is not None:
        return requested
    if not suffix:
        return "png"
    if suffix == "png" or suffix not in FORMATS:
        raise InputError(
            f"{out} ends in {out.suffix}: use .mp4, .webm or .gif, a name without suffix for a folder of PNG frames, "
            "or give --format."
        )
    return suffix


def needs_even_sides(kind: Format) -> bool:
    """Whether a format subsamples chroma."""
    return kind in CODECS


def check_encodable(kind: Format, width: int, height: int, fps: float) -> None:
    """Raises: InputError: the format does not allow this size in pixels or this frame rate, or a frame is too large."""
    if width * height > MAX_PIXELS:
        remedy = "give a smaller --size, or fewer --outputs"
        raise InputError(
            f"frames of {width} x {height} pixels do not fit into memory, at most {MAX_PIXELS:,}: {remedy}."
        )
    if needs_even_sides(kind) and (width % 2 or height % 2):
        raise InputError(f"{kind} needs even sides, not {width} x {height}: give --size, or another --format.")
    if kind == "gif" and fps > GIF_FPS:
        raise InputError(f"a GIF plays at most {GIF_FPS:g} frames a second, not {fps:g}: give --fps, or use .mp4.")


def check_free(out: Path, kind: Format, overwrite: bool = False) -> None:
    """Raises: InputError: `out` exists and may not be replaced (see `write_frames`)."""
    if kind == "png":
        check_new_folder(out, COMMAND, overwrite)
    else:
        check_new_file(out, overwrite)


def write_frames(out: Path, kind: Format, frames: Iterable[Frame], fps: float, overwrite: bool = False) -> None:
    """Write frames of one size in temporal order, completely or not at all.

    Args:
        out: File, or the folder of PNG frames (`00000.png`, ...).
        kind: Its format.
        frames: Straight-alpha RGBA; alpha is kept in webm and png, and composited on white in mp4 and gif.
        fps: Frames per second.
        overwrite: Replace an earlier output.

    Raises:
        InputError: `out` exists and `overwrite` is off, or cannot be written.
    """
    if kind == "png":
        with new_folder(out, COMMAND, overwrite) as folder:
            _write_png(folder, frames)
        return
    with new_file(out, overwrite) as file:
        if kind == "gif":
            _write_gif(file, frames, fps)
        else:
            _write_video(file, kind, CODECS[kind], frames, fps)


def on_white(frame: Frame) -> UInt8[np.ndarray, "height width 3"]:
    """Straight-alpha RGBA composited over white."""
    alpha = frame[..., 3:].astype(np.uint16)
    return ((frame[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def offer_ffmpeg() -> None:
    """Put the `ffmpeg` executable of imageio-ffmpeg on this process's PATH, unless there is one already.

    `ns-render` looks for an executable of that name. The link is removed when the process ends.
    """
    if shutil.which("ffmpeg"):
        return
    import imageio_ffmpeg

    folder = tempfile.mkdtemp(prefix="consistent4d-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        os.symlink(imageio_ffmpeg.get_ffmpeg_exe(), Path(folder) / "ffmpeg")
    except (OSError, RuntimeError):
        return  # No executable for this platform, or links are forbidden: ns-render then asks for ffmpeg itself.
    os.environ["PATH"] = os.pathsep.join((os.environ.get("PATH", os.defpath), folder))


def _write_png(folder: Path, frames: Iterable[Frame]) -> None:
    from PIL import Image

    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{index:05d}.png")


def _write_video(file: Path, kind: str, codec: Codec, frames: Iterable[Frame], fps: float) -> None:
    import av

    with av.open(str(file), "w", format=kind, options=codec.container) as container:
        rate = Fraction(fps).limit_denominator(1001)
        stream = container.add_stream(codec.name, rate=rate, options=codec.options)
        stream.pix_fmt = codec.pixel_format
        _tag_bt709(stream.codec_context)
        for index, frame in enumerate(frames):
            if index == 0:
                stream.height, stream.width = frame.shape[:2]
            container.mux(stream.encode(_yuv(frame, codec)))
        container.mux(stream.encode())


def _tag_bt709(context: VideoCodecContext) -> None:
    """Declare BT.709 with limited range: without tags, players guess the matrix from the height of the video."""
    from av.video.reformatter import ColorRange

    context.colorspace = context.color_primaries = context.color_trc = BT709
    context.color_range = ColorRange.MPEG


def _yuv(frame: Frame, codec: Codec) -> VideoFrame:
    """The frame in the codec's pixel format, converted with the BT.709 matrix to limited range."""
    import av
    from av.video.reformatter import ColorRange, Colorspace

    pixels, layout = (frame, "rgba") if codec.has_alpha else (on_white(frame), "rgb24")
    converted = av.VideoFrame.from_ndarray(pixels, format=layout).reformat(
        format=codec.pixel_format,
        dst_colorspace=Colorspace.ITU709,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
    )
    converted.colorspace, converted.color_range = Colorspace.ITU709, ColorRange.MPEG
    return converted


def _write_gif(file: Path, frames: Iterable[Frame], fps: float) -> None:
    """Write a GIF, one frame of which is in memory at a time.

    All frames share a palette, as palettes of their own would flicker; so they wait on the disk until it is known.
    """
    from PIL import Image

    waiting = file.with_name(f"{file.name}.frames")
    waiting.mkdir()
    count = 0
    for frame in frames:
        Image.fromarray(on_white(frame)).save(waiting / f"{count}.png", compress_level=1)
        count += 1
    palette = _palette([_opened(waiting, index) for index in range(0, count, -(-count // PALETTE_SAMPLES))])
    _encode_gif(file, (_opened(waiting, index).quantize(palette=palette) for index in range(count)), count, fps)


def _opened(folder: Path, index: int) -> Image.Image:
    """A frame that waits on the disk."""
    from PIL import Image

    with Image.open(folder / f"{index}.png") as image:
        image.load()
        return image


def _encode_gif(file: Path, images: Iterable[Image.Image], count: int, fps: float) -> None:
    """Encode images that share a palette, one by one.

    Pillow's encoder would keep all of them until the last one is there.
    """
    import av

    durations = _durations(count, fps)
    options = {"loop": "0", "final_delay": str(durations[-1] // CENTISECOND)}
    with av.open(str(file), "w", format="gif", options=options) as container:
        stream = container.add_stream("gif", rate=1000 // CENTISECOND)
        stream.pix_fmt = "pal8"
        begin = 0
        for index, (image, duration) in enumerate(zip(images, durations, strict=True)):
            if index == 0:
                stream.width, stream.height = image.size
            indexed: Any = (np.asarray(image), _argb(image))  # What `pal8` is made of; PyAV's types do not know it.
            frame = av.VideoFrame.from_ndarray(indexed, format="pal8")
            frame.pts, frame.time_base = begin, Fraction(CENTISECOND, 1000)
            container.mux(stream.encode(frame))
            begin += duration // CENTISECOND
        container.mux(stream.encode())


def _argb(image: Image.Image) -> UInt8[np.ndarray, "256 4"]:
    """The palette of an image, each colour opaque, with alpha before it."""
    colours = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
    entries = np.zeros((256, 4), np.uint8)
    entries[:, 0], entries[: len(colours), 1:] = 255, colours
    return entries


def _palette(samples: list[Image.Image]) -> Image.Image:
    """256 colours shared by all samples; one of them is white, the background."""
    from PIL import Image

    mosaic = Image.new("RGB", (samples[0].width, samples[0].height * len(samples)))
    for row, image in enumerate(samples):
        mosaic.paste(image, (0, row * image.height))
    palette = mosaic.quantize(256, Image.Quantize.MEDIANCUT)
    colours = np.array(palette.getpalette(), np.uint8).reshape(-1, 3)
    # Pillow matches colours in steps of four levels, so an almost white entry could replace the background.
    colours[(colours >= 248).all(axis=1)] = 255
    palette.putpalette(colours.tobytes())
    return palette


def _durations(count: int, fps: float) -> list[int]:
    """Milliseconds for which each of `count` frames is shown: multiples of 10 whose sum is the duration of all."""
    ends = [round(100.0 * index / fps) for index in range(count + 1)]
    return [10 * (end - start) for start, end in pairwise(ends)]
