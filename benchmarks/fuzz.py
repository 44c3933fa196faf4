"""Feeds mutated files to the readers of meta.json, camera paths and weight headers (`pip install atheris`; Linux).

A reader may accept a file or raise `InputError` in one line; whatever else it raises, and whatever takes ten seconds or
2 GB, is a crash: the run then ends with the input in a file `crash-*` or `timeout-*`.

    python -m benchmarks.fuzz meta --executions 1000000
"""

from __future__ import annotations

import importlib
import json
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

SECONDS = 10
"""Longest time for one input."""
MEGABYTES = 2048
"""Largest memory of the process."""
LONGEST = 4096
"""Bytes of the largest input."""
CAMERA = {"elevation_deg": 0, "azimuth_deg": 10.5, "distance": 2.0, "fov_y_deg": 49.1}
POSE = [1, 0, 0, 2.5, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
CROP = {
    "crop_center": [0, 0, 0],
    "crop_scale": [1, 1, 1],
    "crop_rot": [0, 0, 0],
    "crop_bg_color": {"r": 1, "g": 2, "b": 3},
}
PATH = {
    "camera_type": "perspective",
    "render_width": 64,
    "render_height": 64,
    "seconds": 1.5,
    "fps": 24,
    "crop": CROP,
    "camera_path": [{"camera_to_world": POSE, "fov": 50, "aspect": 1, "render_time": 0.5}] * 2,
}
TENSORS = {"a.weight": {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]}, "__metadata__": {"format": "pt"}}
Reader = Literal["meta", "path", "weights"]


@dataclass(frozen=True)
class Target:
    """A reader, and what good files of it look like."""

    name: str
    """Of the file."""
    seeds: tuple[bytes, ...]
    """Good files, from which the mutations begin."""
    read: Callable[[Path], object]


def target_of(reader: Reader) -> Target:
    """The reader of a kind of file; to be called where imports are instrumented."""
    if reader == "meta":
        from consistent4d_ns.data.dataparser import read_cameras

        return Target("meta.json", (as_bytes({"cameras": {"input": CAMERA, "eval_0": CAMERA}}),), read_cameras)
    if reader == "path":
        from consistent4d_ns.media.camera_paths import read_path

        return Target("path.json", (as_bytes(PATH), as_bytes(PATH | {"crop": None})), read_path)
    from consistent4d_ns.guidance.weights import read_tensors

    return Target("weights.safetensors", (with_header(as_bytes(TENSORS)), with_header(b"{}")), read_tensors)


def as_bytes(content: object) -> bytes:
    """JSON."""
    return json.dumps(content).encode()


def with_header(header: bytes, body: bytes = bytes(4)) -> bytes:
    """A file of safetensors."""
    return struct.pack("<Q", len(header)) + header + body


def large(chosen: Any) -> int:
    """A whole number of any size from -1 to 2^63."""
    return chosen.ConsumeIntInRange(-1, 2 ** chosen.ConsumeIntInRange(0, 63) - 1)


def tensors_from(content: bytes) -> bytes:
    """A file of safetensors that random bytes choose: bytes as they are, with a header of their length, or tensors.

    Of bytes as they are, hardly any would get past the length at the beginning.
    """
    atheris: Any = importlib.import_module("atheris")
    chosen = atheris.FuzzedDataProvider(content)
    kind = chosen.ConsumeIntInRange(0, 3)
    if kind == 0:
        return chosen.ConsumeBytes(LONGEST)
    if kind == 1:
        return with_header(chosen.ConsumeBytes(LONGEST))
    header = {
        chosen.ConsumeUnicode(8): {
            "dtype": chosen.PickValueInList(["F32", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "F4", "", None]),
            "shape": [large(chosen) for _ in range(chosen.ConsumeIntInRange(0, 5))],
            "data_offsets": [large(chosen), large(chosen)],
        }
        for _ in range(chosen.ConsumeIntInRange(0, 3))
    }
    if kind == 3:  # One tensor that is right, but for its name and what follows.
        header |= {chosen.ConsumeUnicode(8): {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]}}
    return with_header(as_bytes(header), chosen.ConsumeBytes(64))


def check(target: Target, file: Path, content: bytes) -> None:
    """Read a file; raises whatever is no `InputError` of one line."""
    from consistent4d_ns.errors import InputError, printable

    file.write_bytes(content)
    try:
        target.read(file)
    except InputError as error:
        line = printable(str(error))
        if len(line) > 10_000:
            raise AssertionError(f"{len(line)} letters are no clear line") from error


def fuzz(
    reader: Annotated[Reader, tyro.conf.Positional],
    /,
    executions: int = 1_000_000,
    seed: int = 1,
) -> None:
    """Feed mutated files to a reader.

    Args:
        reader: Which.
        executions: How often.
        seed: Of the mutations.
    """
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["consistent4d_ns"]):
        target = target_of(reader)
    started = time.monotonic()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for index, content in enumerate(target.seeds):
            (corpus / str(index)).write_bytes(content)
        file = Path(folder) / target.name
        count = 0

        def one(content: bytes) -> None:
            nonlocal count
            count += 1
            check(target, file, tensors_from(content) if reader == "weights" else content)
            if count == executions:
                seconds = time.monotonic() - started
                print(f"{reader}: {count} executions in {seconds:.0f} s, 0 crashes", flush=True)

        options = [f"-runs={executions}", f"-seed={seed}", f"-timeout={SECONDS}", f"-rss_limit_mb={MEGABYTES}"]
        atheris.Setup([sys.argv[0], *options, f"-max_len={LONGEST}", "-print_final_stats=1", str(corpus)], one)
        atheris.Fuzz()


if __name__ == "__main__":
    tyro.cli(fuzz, description=__doc__)
