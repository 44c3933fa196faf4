"""`consistent4d camera-path`: paths for `ns-render camera-path` and the viewer's render tab."""

from __future__ import annotations

import json
import shlex
from typing import Annotated

import tyro

from consistent4d_ns.cli.help_texts import OutArgument
from consistent4d_ns.files.outputs import new_file
from consistent4d_ns.media.path_options import Kind, PathOptions


def camera_path_command(
    kind: Annotated[Kind, tyro.conf.Positional],
    out: OutArgument,
    /,
    options: Annotated[PathOptions, tyro.conf.arg(name="")],
    overwrite: bool = False,
) -> None:
    """Write a camera path as JSON, with a time for every frame.

    Defaults fit a video of 32 frames at 16 frames per second and 256 pixels, and the default input camera (elevation 0,
    distance 2, fovy 49.1).

    Args:
        kind: orbit: one orbit around the object at a fixed time; frozen-orbits: the same at several times; fixed-view:
            a fixed view while time passes; orbit-in-time: one orbit while time passes; evaluation-views: the four views
            of the paper's evaluation, one after another.
        out: File to write, .json. In DATA/camera_paths/ the viewer finds it under "Load Path".
        options: Trajectory, length and image size.
        overwrite: Replace an existing file.
    """
    from consistent4d_ns.media.camera_paths import InputVideo, camera_path, path_json

    with new_file(out, overwrite) as file:
        content = path_json(camera_path(kind, options, InputVideo()))
        file.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")
    count, seconds = len(content["camera_path"]), content["seconds"]
    print(f"{out}: {count} frames, {seconds:g} s.")
    file = shlex.quote(str(out))
    print(f"Next: ns-render camera-path --load-config .../config.yml --camera-path-filename {file} --output-path x.mp4")
