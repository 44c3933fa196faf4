"""`consistent4d camera-path`: paths for `ns-render camera-path` and the viewer's render tab."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import tyro

from consistent4d_ns.media.camera_paths import Kind, PathOptions, Source, camera_path, path_json
from consistent4d_ns.outputs import new_file


def camera_path_command(
    kind: Annotated[Kind, tyro.conf.Positional],
    out: Annotated[Path, tyro.conf.Positional],
    /,
    options: Annotated[PathOptions, tyro.conf.arg(name="")],
    overwrite: bool = False,
) -> None:
    """Write a camera path as JSON, with a time for every frame.

    What is left out fits 32 frames of an input camera at its defaults: elevation 0, distance 2, fovy 49.1, 16 frames a
    second, 256 pixels.

    Args:
        kind: orbit: all round the object at one moment; frozen-orbits: the same at several moments; fixed-view: one
            view while time passes; orbit-in-time: all round while time passes; evaluation-views: the four views of the
            paper's evaluation, one after the other.
        out: File to write, .json. In DATA/camera_paths/ the viewer finds it under "Load Path".
        options: How the path runs.
        overwrite: Replace an earlier file.
    """
    content = path_json(camera_path(kind, options, Source()))
    with new_file(out, overwrite) as file:
        file.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")
    count, seconds = len(content["camera_path"]), content["seconds"]
    print(f"{out}: {count} frames, {seconds:g} s.")
    print(f"Next: ns-render camera-path --load-config .../config.yml --camera-path-filename {out} --output-path x.mp4")
