"""Reads videos: when their frames are shown, and the frames the right way up, as straight RGBA or as plain RGB."""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from bisect import bisect_right
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from consistent4d_ns.data.files import UPRIGHT, Orientation, check_not_empty, check_side, oriented, reading
from consistent4d_ns.data.times import Spacing
from consistent4d_ns.data.tones import HLG, PQ, to_sdr
from consistent4d_ns.errors import InputError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

VIDEO_TYPES = (".webm", ".mkv", ".mov", ".mp4")
"""Videos that can have alpha, and those that phones and cameras record."""
MATROSKA = b"\x1a\x45\xdf\xa3"
"""First bytes of WebM and Matroska files; all others are taken for QuickTime or MP4."""
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""FFmpeg's own decoders of these drop the alpha plane, libvpx keeps it."""


class ShownPacket(NamedTuple):
    """A frame as the container announces it; times are in the stream's unit."""

    start: int
    duration: int
    is_key: bool
    """Whether decoding can start here."""


@dataclass(frozen=True)
class Clock:
    """Time stamps from the container, in seconds."""

    starts: tuple[float, ...]
    """Start time of each frame, increasing."""
    last: float
    """How long the last frame is shown; 0 where the container does not say."""


def video_spacing(path: Path) -> Spacing:
    """When the frames of a video are shown, without decoding them.

    Raises:
        InputError: It is damaged, cut short, too large, or holds no frame.
    """
    with _open_video(path) as video:
        stream = _stream(video)
        with reading(path):
            clock = _clock(video, stream)
        nominal = float(stream.average_rate or 0)
        if len(video.streams) == 1 and video.duration and clock.starts:
            _check_complete(path, clock, video.duration * 1e-6, nominal)
    if not clock.starts:
        raise InputError(f"{path} holds no frames: export it again")
    return _spacing(clock, nominal)


def read_video(path: Path, indices: Sequence[int]) -> Iterator[UInt8[np.ndarray, "h w 4"]]:
    """The chosen frames of a video as straight RGBA; `indices` increase.

    Raises:
        InputError: It is damaged, too large, or has no alpha channel.
    """
    wanted = set(indices)
    with _open_video(path) as video:
        stream = _stream(video)
        orientation = _orientation(path)
        frames = _decode_hevc(path, stream) if stream.codec_context.name == "hevc" else _decode(path, video, stream)
        for index, frame in enumerate(frames):
            if index in wanted:
                wanted.discard(index)
                yield oriented(_rgba(frame, path), orientation)
            if not wanted:
                return
    found = len(indices) - len(wanted)
    raise InputError(f"{path} ends after {found} of {len(indices)} frames: export it again")


def has_alpha(path: Path) -> bool:
    """Whether a video has an alpha channel, by its first frame.

    Raises:
        InputError: It is damaged or too large.
    """
    with _open_video(path) as video:
        stream = _stream(video)
        if stream.codec_context.name == "hevc":
            frames = _decode_hevc(path, stream)
            try:
                return next(frames, None) is not None
            except InputError:
                return False
            finally:
                frames.close()
        frame = next(_decode(path, video, stream), None)
    return frame is not None and any(component.is_alpha for component in frame.format.components)


def read_plain_video(path: Path, indices: Sequence[int]) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """The chosen frames of a video as RGB, whatever its alpha; `indices` increase. High dynamic range is tone-mapped.

    What lies between chosen frames is skipped as far as the video's key frames allow.

    Raises:
        InputError: It is damaged, too large, or ends before the last chosen frame.
    """
    orientation = _orientation(path)
    with _open_video(path) as video:
        stream = _stream(video)
        stream.thread_type = "AUTO"
        with reading(path):
            packets = _shown_packets(video, stream)
        times = [packet.start for packet in packets]
        keys = [packet.start for packet in packets if packet.is_key]
        if len(times) <= indices[-1]:
            raise InputError(f"{path} ends after {len(times)} frames: export it again")
        with reading(path):
            for frame in _seek_frames(video, stream, [times[index] for index in indices], keys):
                yield oriented(_rgb(frame), orientation)


def _seek_frames(
    video: InputContainer, stream: VideoStream, wanted: list[int], keys: list[int]
) -> Iterator[VideoFrame]:
    """The frames shown at increasing times, in the stream's unit; decodes from the last of the key frames before each.

    Raises:
        ValueError: The stream ends before the last of them.
    """
    frames: Iterator[VideoFrame] | None = None
    position = 0
    for time in wanted:
        before = bisect_right(keys, time)
        key = keys[before - 1] if before else wanted[0]
        if frames is None or key > position:
            video.seek(key, stream=stream)
            frames = video.decode(stream)
        frame = next((frame for frame in frames if (frame.pts or 0) >= time), None)
        if frame is None:
            raise ValueError("frames that its index announces are missing")
        position = frame.pts or 0
        yield frame


def _rgb(frame: VideoFrame) -> UInt8[np.ndarray, "h w 3"]:
    """A decoded frame as sRGB."""
    transfer = int(frame.color_trc)
    if transfer in (PQ, HLG):
        return to_sdr(frame.to_ndarray(format="rgb48le"), transfer)
    return frame.to_ndarray(format="rgb24")


def _open_video(path: Path) -> InputContainer:
    """Open a video of acceptable size.

    Only the expected demuxer and the file protocol are allowed: FFmpeg would otherwise follow playlists.
    """
    import av

    check_not_empty(path)
    with reading(path):
        video = av.open(f"file:{path}", format=_container(path), options={"protocol_whitelist": "file"})
    if not video.streams.video:
        raise InputError(f"{path} has no video stream: export it again")
    stream = _stream(video)
    if stream is None or stream.codec_context is None:
        raise InputError(f"{path} is in a format that FFmpeg cannot decode, or damaged: export it again")
    check_side(path, stream.height, stream.width)
    return video


def _container(path: Path) -> str:
    """FFmpeg's demuxer for a file, by its first bytes."""
    with path.open("rb") as file:
        return "matroska" if file.read(4) == MATROSKA else "mov"


def _stream(video: InputContainer) -> VideoStream:
    """The main video stream; cover pictures are video streams, too."""
    stream: Any = video.streams.best("video")
    return stream


def _clock(video: InputContainer, stream: VideoStream) -> Clock:
    """Times of all frames that are shown; an edit list may hide some."""
    packets = _shown_packets(video, stream)
    unit = float(stream.time_base or 0)
    starts = tuple(packet.start * unit for packet in packets)
    return Clock(starts, packets[-1].duration * unit if packets else 0.0)


def _shown_packets(video: InputContainer, stream: VideoStream) -> list[ShownPacket]:
    """What is known about all frames that are shown, in order of time."""
    shown = (p for p in video.demux(stream) if p.size and not p.is_discard)
    return sorted(ShownPacket(p.pts, p.duration or 0, p.is_keyframe) for p in shown if p.pts is not None)


def _check_complete(path: Path, clock: Clock, announced: float, nominal: float) -> None:
    """A WebM that ends too early is only recognised by its announced duration in seconds.

    Raises:
        InputError: Frames are missing at the end.
    """
    longest = max((b - a for a, b in pairwise(clock.starts)), default=1 / nominal if nominal else 1.0)
    end = clock.starts[-1] + max(clock.last, longest)
    if announced - end > 0.5 * longest:
        raise InputError(
            f"{path} is cut short: {announced:g} s are announced but the last frame starts at {clock.starts[-1]:g} s; "
            "export or copy it again, or give a folder of frames"
        )


def _spacing(clock: Clock, nominal: float) -> Spacing:
    """Positions and rate; evenly spaced frames have the nominal rate, which is not rounded as their times are."""
    count, span = len(clock.starts), clock.starts[-1] - clock.starts[0]
    spacing = Spacing.from_stamps(clock.starts)
    even = spacing == Spacing.even(count)
    measured = (count - 1) / span if span else None
    agrees = measured is None or abs(nominal - measured) * span < 0.5
    return Spacing(spacing.positions, nominal if even and nominal and agrees else measured)


def _decode(path: Path, video: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """All frames of a stream."""
    from av.codec.context import CodecContext

    name = ALPHA_DECODERS.get(stream.codec_context.name)
    decoder: Any = CodecContext.create(name, "r") if name else stream.codec_context
    with reading(path):
        for packet in video.demux(stream):
            yield from decoder.decode(packet)


def _decode_hevc(path: Path, stream: VideoStream) -> Generator[UInt8[np.ndarray, "h w 4"], None, None]:
    """All frames of an HEVC stream by the FFmpeg program, whose decoder reads the alpha layer; PyAV's does not.

    Raises:
        InputError: This FFmpeg finds no alpha layer, or the video is damaged.
    """
    import imageio_ffmpeg

    source = ["-protocol_whitelist", "file,pipe", "-noautorotate", "-f", _container(path), "-i", f"file:{path}"]
    output = ["-map", f"0:{stream.index}", "-fps_mode", "passthrough", "-pix_fmt", "rgba", "-f", "rawvideo", "-"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", *source, *output]
    with tempfile.TemporaryFile() as messages:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=messages) as process:
            assert process.stdout is not None
            try:
                length = stream.height * stream.width * 4
                while len(data := process.stdout.read(length)) == length:
                    image = np.frombuffer(data, np.uint8).reshape(stream.height, stream.width, 4)
                    _check_alpha_layer(path, image)
                    yield image
                process.wait()
            finally:
                process.kill()  # Where not all frames are wanted; no effect after the end.
        messages.seek(0)
        reason = messages.read().decode(errors="replace").strip()
    if process.returncode > 0:
        if "fps_mode" in reason:  # An option that FFmpeg before 5.1 does not know; its decoder knows no alpha either.
            raise _no_alpha_layer(path)
        with reading(path):
            raise ValueError(reason or f"FFmpeg ends with {process.returncode}")


def _check_alpha_layer(path: Path, image: UInt8[np.ndarray, "h w 4"]) -> None:
    """Raises: InputError: the frame is opaque, as it comes out where FFmpeg finds no alpha layer."""
    if image[..., 3].min() == 255:
        raise _no_alpha_layer(path)


def _prepare(path: Path) -> str:
    """A command that cuts the object out of a video."""
    return f"consistent4d prepare {shlex.quote(str(path))} OUT"


def _no_alpha_layer(path: Path) -> InputError:
    """The video has none, or FFmpeg is too old to decode it."""
    return InputError(
        f"{path} is HEVC, in which the installed FFmpeg finds no alpha channel: cut the object out with "
        f"`{_prepare(path)}`, or export ProRes 4444 or RGBA frames with alpha"
    )


def _rgba(frame: VideoFrame | UInt8[np.ndarray, "h w 4"], path: Path) -> UInt8[np.ndarray, "h w 4"]:
    """A decoded frame as straight RGBA."""
    if isinstance(frame, np.ndarray):
        return frame
    if not any(component.is_alpha for component in frame.format.components):
        raise InputError(
            f"{path} has no alpha channel: cut the object out with `{_prepare(path)}`, or export it with alpha"
        )
    with reading(path):
        return frame.to_ndarray(format="rgba")


def _orientation(path: Path) -> Orientation:
    """How the container wants the video to be shown.

    Raises:
        InputError: Turned by an angle that is no multiple of 90 degrees.
    """
    from av.sidedata.sidedata import Type

    with _open_video(path) as video, reading(path):
        data = next(video.decode(_stream(video))).side_data.get(Type.DISPLAYMATRIX)  # type: ignore[arg-type]
    if data is None:
        return UPRIGHT
    matrix = np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2].astype(float)
    a, b, c, d = (round(value) for value in (matrix / max(np.abs(matrix).max(), 1.0)).flatten().tolist())
    orientation = (a, b, c, d)
    if abs(a * d - b * c) != 1 or (a and b):
        raise InputError(f"{path} is to be shown turned by an odd angle: export it upright")
    return orientation
