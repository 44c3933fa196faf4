"""How well `consistent4d prepare` cuts objects out, against true mattes; its memory and time on a long clip.

    consistent4d toy toy
    python -m benchmarks.prepared toy --raw raw_with_background
    python -m benchmarks.prepared toy --long 600
    python -m benchmarks.prepared toy --sequences prepared
    python -m benchmarks.four_d --data toy prepared/photo0 --variants preset --out training.json

The toy is laid over backgrounds that pan: procedural ones that look like a photo (a sky, a ground, blurred bushes, a
texture and noise), and patterns of the toy's own colours. Each becomes a video, and the video frames, without a hand.
`--raw` adds pictures whose background is still there under alpha 0, each as a clip of one frame. Reported is the mean
intersection over union of alpha above 0.5 and, over the pixels of both mattes, the mean difference of alpha and of the
picture on white, in 8-bit steps. `--long` makes a clip of 3840 x 2160 pixels of that many seconds instead.

`--sequences` keeps a copy of the toy for each background, with prepared frames, put back where they were in the video,
in place of the true ones of the input view. Training on it and on the toy shows what the errors of the masks cost.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from jaxtyping import Float32, UInt8
from PIL import Image

SEEDS = (0, 1)
"""One background of each kind per seed."""
PAN = 2.0
"""Pixels per frame by which the background moves."""
RATE = 16
"""Frames per second."""


@dataclass
class Options:
    """Options of the script."""

    toy: Annotated[Path, tyro.conf.Positional]
    """The toy, or another folder with `input/`."""
    raw: Path | None = None
    """Folder of RGBA pictures whose colours under alpha 0 are those of the background."""
    long: float | None = None
    """Measure memory and time on a clip of this many seconds instead."""
    sequences: Path | None = None
    """New folder for copies of the toy whose input view is prepared."""
    keep: Path | None = None
    """Folder in which videos and results stay."""


def noise(height: int, width: int, rng: np.random.Generator, roughness: float) -> Float32[np.ndarray, "h w 3"]:
    """Octaves of smooth noise in [0, 1]; each is `roughness` times as strong as the coarser one before."""
    import cv2

    total = np.zeros((height, width, 3), np.float32)
    for octave in range(1, 7):
        grid = rng.random((2**octave + 1, 2**octave * width // height + 1, 3)).astype(np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * roughness ** (octave - 1)
    total -= total.min(axis=(0, 1))
    return total / total.max(axis=(0, 1))


def photo_like(height: int, width: int, seed: int) -> Float32[np.ndarray, "h w 3"]:
    """A sky above a ground with blurred bushes, textured and noisy."""
    rng = np.random.default_rng(seed)
    texture = noise(height, width, rng, 0.5)
    level = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    sky, ground = np.array([0.55, 0.68, 0.85]), np.array([0.42, 0.40, 0.30])
    image = np.where(level < 0.55, sky * (1 - 0.3 * level), ground * (0.7 + 0.5 * level)) + 0.35 * (texture - 0.5)
    rows, columns = np.mgrid[:height, :width]
    for _ in range(12):
        x, y = rng.random() * width, height * rng.uniform(0.35, 0.85)
        radius = height * rng.uniform(0.05, 0.17)
        inside = 1 / (1 + np.exp((np.hypot(columns - x, rows - y) - radius) / (0.08 * radius)))[..., None]
        colour = np.array([0.2, 0.35, 0.15]) + 0.25 * rng.random(3) + 0.3 * (texture - 0.5)
        image = image * (1 - inside) + inside * colour
    return (image + rng.normal(0, 0.01, image.shape)).clip(0, 1).astype(np.float32)


def own_colours(
    frames: UInt8[np.ndarray, "n h w 4"], height: int, width: int, seed: int
) -> Float32[np.ndarray, "h w 3"]:
    """A pattern of colours that the object itself has."""
    rng = np.random.default_rng(seed)
    pixels = frames[frames[..., 3] > 250][:, :3].astype(np.float32) / 255
    palette = pixels[rng.integers(0, len(pixels), 9)]
    palette = palette[np.argsort(palette.sum(axis=1))]
    values = noise(height, width, rng, 0.57)[..., 0]
    ranks = np.argsort(np.argsort(values.ravel())).reshape(height, width) / values.size * 8
    lower = ranks.astype(int).clip(0, 7)
    share = (ranks - lower)[..., None]
    return (palette[lower] * (1 - share) + palette[lower + 1] * share).astype(np.float32)


def over(
    frames: UInt8[np.ndarray, "n h w 4"], background: Float32[np.ndarray, "h2 w2 3"]
) -> UInt8[np.ndarray, "n h w 3"]:
    """The frames over a background that pans."""
    import cv2

    _, height, width, _ = frames.shape
    images = []
    for i, frame in enumerate(frames):
        shift = np.array([[1, 0, -PAN * i], [0, 1, -3 * np.sin(i / 5) - 4]])
        behind = cv2.warpAffine(background, shift, (width, height), borderMode=cv2.BORDER_REFLECT)
        alpha = frame[..., 3:] / 255
        images.append((frame[..., :3] / 255 * alpha + behind * (1 - alpha)) * 255 + 0.5)
    return np.stack(images).astype(np.uint8)


def write_video(path: Path, images: UInt8[np.ndarray, "n h w 3"]) -> None:
    """As a phone would write it: H.264, chroma at half size."""
    import imageio_ffmpeg

    _, height, width, _ = images.shape
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(RATE), "-i", "-"]
    target = ["-c:v", "libx264", "-crf", "16", "-pix_fmt", "yuv420p", str(path)]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *source, *target]
    subprocess.run(command, input=images.tobytes(), check=True)


def prepare(source: Path, out: Path) -> None:
    """Run the command as a user does, without options."""
    command = [sys.executable, "-m", "consistent4d_ns.cli.main", "prepare", str(source), str(out), "--overwrite"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def put_back(folder: Path, height: int, width: int) -> Iterator[tuple[int, Float32[np.ndarray, "h w 4"]]]:
    """Prepared frames where they were in the source: number of the source's frame, and premultiplied RGBA in [0, 1]."""
    import cv2

    for frame in json.loads((folder / "prepare.json").read_text())["frames"]:
        rgba = np.array(Image.open(folder / frame["name"])).astype(np.float32) / 255
        rgba[..., :3] *= rgba[..., 3:]
        left, top, side = frame["crop"]
        scale = side / len(rgba)
        place = np.array([[scale, 0, left + scale / 2 - 0.5], [0, scale, top + scale / 2 - 0.5]])
        yield frame["source_frame"], cv2.warpAffine(rgba, place, (width, height), flags=cv2.INTER_LINEAR)


def compare(folder: Path, truth: UInt8[np.ndarray, "n h w 4"]) -> str:
    """Prepared frames against true ones."""
    overlaps, alphas, colours = [], [], []
    for i, ours in put_back(folder, *truth.shape[1:3]):
        theirs = truth[i].astype(np.float32) / 255
        theirs[..., :3] *= theirs[..., 3:]
        a, b = ours[..., 3] > 0.5, theirs[..., 3] > 0.5
        overlaps.append((a & b).sum() / (a | b).sum())
        both = np.maximum(ours[..., 3], theirs[..., 3]) > 0
        alphas.append(255 * np.abs(ours - theirs)[..., 3][both].mean())
        on_white = ours[..., :3] - ours[..., 3:] - theirs[..., :3] + theirs[..., 3:]
        colours.append(255 * np.abs(on_white)[both].mean())
    return (
        f"{len(overlaps):3} frames  IoU mean {np.mean(overlaps):.3f}  least {min(overlaps):.3f}  "
        f"alpha {np.mean(alphas):.1f}  on white {np.mean(colours):.1f}"
    )


def write_sequence(toy: Path, prepared: Path, size: tuple[int, ...], out: Path) -> None:
    """A copy of the toy whose input view are prepared frames, where they were in the source.

    Raises:
        ValueError: Not every frame was prepared.
    """
    shutil.copytree(toy, out, ignore=shutil.ignore_patterns("input"))
    (out / "input").mkdir()
    count = 0
    for i, rgba in put_back(prepared, *size):
        straight = np.concatenate((rgba[..., :3] / np.maximum(rgba[..., 3:], 1e-6), rgba[..., 3:]), axis=-1).clip(0, 1)
        Image.fromarray((straight * 255 + 0.5).astype(np.uint8)).save(out / "input" / f"{i}.png")
        count += 1
    if count != len(list((toy / "input").glob("*.png"))):
        raise ValueError(f"{prepared} lacks frames of {toy}, so that they cannot be compared")


def measure_toy(options: Options, folder: Path) -> None:
    """The toy over backgrounds."""
    paths = sorted((options.toy / "input").glob("*.png"), key=lambda path: int(path.stem))
    frames = np.stack([np.array(Image.open(path)) for path in paths])
    height, width = frames.shape[1] + 16, frames.shape[2] + int(PAN * len(frames)) + 80
    for seed in SEEDS:
        for name, background in (
            ("photo", photo_like(height, width, seed)),
            ("own", own_colours(frames, height, width, seed)),
        ):
            video, out = folder / f"{name}{seed}.mp4", folder / f"{name}{seed}"
            write_video(video, over(frames, background))
            prepare(video, out)
            print(f"{video.name:24} {compare(out, frames)}", flush=True)
            if options.sequences is not None:
                write_sequence(options.toy, out, frames.shape[1:3], options.sequences / out.name)


def measure_raw(folder: Path, raw: Path) -> None:
    """Single pictures with their background."""
    for path in sorted(raw.glob("*.png")):
        truth = np.array(Image.open(path))
        (folder / path.stem).mkdir(exist_ok=True)
        Image.fromarray(truth[..., :3]).save(folder / path.stem / "0.png")
        prepare(folder / path.stem, folder / f"{path.stem}_out")
        print(f"{path.name:24} {compare(folder / f'{path.stem}_out', truth[None])}", flush=True)


def measure_long(options: Options, folder: Path, seconds: float) -> None:
    """Memory and time of a clip of 3840 x 2160 pixels, 10 frames per second, in which the toy moves once a second."""
    import imageio_ffmpeg

    video = folder / "long.mp4"
    if not video.exists():
        shape = "fps=10,scale=2160:2160,pad=3840:2160:(ow-iw)/2:0:color=0x7799aa"
        source = [
            "-stream_loop",
            "-1",
            "-framerate",
            "1",
            "-i",
            str(options.toy / "input" / "%d.png"),
            "-t",
            f"{seconds:g}",
        ]
        target = [
            "-vf",
            shape,
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            "-g",
            "250",
            "-pix_fmt",
            "yuv420p",
            str(video),
        ]
        subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *source, *target], check=True)
    before = time.perf_counter()
    prepare(video, folder / "long")
    passed = time.perf_counter() - before
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"{video.name:24} {video.stat().st_size / 2**20:.0f} MiB: {passed:.0f} s, at most {memory:.2f} GiB")


def main(options: Options) -> None:
    """Measure what the options ask for."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        if options.long is not None:
            measure_long(options, folder, options.long)
            return
        measure_toy(options, folder)
        if options.raw is not None:
            measure_raw(folder, options.raw)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
