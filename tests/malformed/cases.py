"""What a row of the table of malformed inputs is, and what its files are made of."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from consistent4d_ns.media.camera_paths import InputVideo, camera_path, path_json
from consistent4d_ns.media.path_options import PathOptions
from tests.support.stored_run import FOLDER

Make = Callable[[Path], object]
TRAIN = "ns-train consistent4d-mini --vis tensorboard --max-num-iterations 1 --pipeline.interpolation.kind none"
"""Without the network that most machines lack; the prior is the bundled one."""
RENDER = "consistent4d render run out.gif --outputs rgb"


@dataclass(frozen=True)
class Case:
    """A command on an input that it cannot use."""

    name: str
    """What is wrong with the input."""
    line: str
    """The command, run in a folder of its own."""
    words: str
    """Part of the line that it has to say."""
    make: Make | None = None
    """Writes the input into that folder."""


def together(*makes: Make) -> Make:
    """Several things to write, one after the other."""
    return lambda place: [make(place) for make in makes]


def text(name: str, content: str | bytes) -> Make:
    """A file, with its folders."""

    def make(place: Path) -> None:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return make


def pipe(name: str) -> Make:
    """A named pipe into which nobody writes: whoever reads it waits for ever."""

    def make(place: Path) -> None:
        import os

        (place / name).unlink(missing_ok=True)
        os.mkfifo(place / name)

    return make


def link(name: str, target: str) -> Make:
    """A symbolic link."""

    def make(place: Path) -> None:
        (place / name).unlink(missing_ok=True)
        (place / name).symlink_to(target)

    return make


def unreadable(name: str) -> Make:
    """A file or folder without any permission."""
    return lambda place: (place / name).chmod(0)


def read_only(name: str) -> Make:
    """A folder in which nothing can be made."""

    def make(place: Path) -> None:
        (place / name).mkdir()
        (place / name).chmod(0o555)

    return make


def gone(name: str) -> Make:
    """A file that is missing."""
    return lambda place: (place / name).unlink()


def picture(shift: int = 0, size: int = 16, alpha: int | None = None) -> Image.Image:
    """A red square on nothing, or with the same alpha everywhere."""
    pixels = np.zeros((size, size, 4), np.uint8)
    pixels[4:-4, 4:-4] = (200, 40 + shift, 20, 255)
    if alpha is not None:
        pixels[..., 3] = alpha
    return Image.fromarray(pixels)


def frames(folder: str = "frames", count: int = 4, name: str = "{}.png") -> Make:
    """A folder of good frames."""

    def make(place: Path) -> None:
        (place / folder).mkdir(parents=True)
        for index in range(count):
            picture(index).save(place / folder / name.format(index))

    return make


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, data: bytes, *extra: bytes) -> bytes:
    """An RGBA image of 8 bits whose header says what it likes."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


CAMERA = {"elevation_deg": 0.0, "azimuth_deg": 0.0, "distance": 2.0, "fov_y_deg": 49.1}


def views(content: Any, *folders: str) -> Make:
    """A folder `data` with views and a meta.json, whose content is text or becomes JSON."""
    meta = content if isinstance(content, (str, bytes)) else json.dumps(content)
    return together(*(frames(f"data/{name}") for name in ("input", *folders)), text("data/meta.json", meta))


def meta(**change: Any) -> dict[str, Any]:
    """A meta.json of the input view and another, with changes to that other's camera."""
    return {"cameras": {"input": CAMERA, "eval_0": CAMERA | change}}


def run(place: Path) -> None:
    """A finished run, `run`, to damage."""
    shutil.copytree(FOLDER, place / "run")


def changed_run(change: Make) -> Make:
    """The run after a change; its folder is the place of the change."""
    return together(run, lambda place: change(place / "run"))


def config(old: str, new: str) -> Make:
    """A run whose config.yml has another text in place of one that it has."""

    def make(place: Path) -> None:
        file = place / "config.yml"
        content = file.read_text()
        assert old in content, old
        file.write_text(content.replace(old, new))

    return changed_run(make)


def state(change: Callable[[dict[str, Any]], object]) -> Make:
    """A run whose checkpoint is whole, and holds something else."""

    def make(place: Path) -> None:
        import torch

        (file,) = (place / "nerfstudio_models").iterdir()
        content = torch.load(file, weights_only=True)
        change(content)
        torch.save(content, file)

    return changed_run(make)


def path(**changes: Any) -> Make:
    """A run, and a camera path `path.json` with changes; `frame` changes its first frame."""
    content = path_json(camera_path("orbit", PathOptions(frames=3, size=16), InputVideo()))
    content["camera_path"][0] |= changes.pop("frame", {})
    return together(run, text("path.json", json.dumps(content | changes)))


def path_text(content: str | bytes) -> Make:
    """A run, and a file in place of a camera path."""
    return together(run, text("path.json", content))


def safetensors(header: bytes | dict[str, Any], body: bytes = b"", length: int | None = None) -> bytes:
    """A file of tensors whose header says what it likes."""
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded) if length is None else length) + encoded + body


def prior(change: Make | None = None, checksums: bool = False) -> Make:
    """Good frames, and a copy of the bundled prior, `prior`, changed; without its list of checksums, or with it."""
    from consistent4d_ns.guidance import bundled_prior
    from consistent4d_ns.guidance.checksums import LIST

    def make(place: Path) -> None:
        shutil.copytree(bundled_prior.folder(), place / "prior")
        if not checksums:
            (place / "prior" / LIST).unlink()
        if change is not None:
            change(place / "prior")

    return together(frames(), make)


def settings(file: str, **changes: Any) -> Make:
    """A JSON file with other settings."""

    def make(place: Path) -> None:
        content = json.loads((place / file).read_text())
        (place / file).write_text(json.dumps(content | changes))

    return make


empty = partial(text, content=b"")
