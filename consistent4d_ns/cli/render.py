"""`consistent4d render`: videos of a finished run with one command."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import tyro

from consistent4d_ns.cli.progress import announce, progress
from consistent4d_ns.errors import InputError
from consistent4d_ns.media.encoding import Format, check_encodable, format_of, write_frames
from consistent4d_ns.media.path_options import KINDS, Kind, PathOptions


def render(
    config: Annotated[Path, tyro.conf.Positional],
    out: Annotated[Path, tyro.conf.Positional],
    /,
    options: Annotated[PathOptions, tyro.conf.arg(name="")],
    path: Kind | Path = "orbit-in-time",
    outputs: tuple[str, ...] = ("input", "rgb", "depth", "normals"),
    format: Format | None = None,
    step: int | None = None,
    data: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Render a finished run: what was filmed and what was made of it, side by side.

    Loads no prior. Unless told otherwise, time passes as fast as it was filmed.

    Args:
        config: The run's config.yml, or its folder.
        out: What to write: .mp4 (H.264, on white), .webm (VP9 with alpha), .gif (on white), or a name without suffix
            for a folder of PNG frames with alpha.
        path: Kind of camera path (see `consistent4d camera-path --help`), or a .json file of your own, from the viewer.
        outputs: Pictures from left to right: input, rgb, depth, normals, accumulation, and rgb_L, depth_L,
            accumulation_L of cascade level L. NAME@DEGREES is seen from so many degrees further round: rgb rgb@90.
        format: Format, where the name of OUT does not say it.
        options: How the path runs. A path of your own keeps its course; it may get another --fps and --size.
        step: Training step of the checkpoint; default: the latest.
        data: The frames, if they were moved since.
        overwrite: Replace what was written there earlier.
    """
    form = format_of(out, format)
    announce(f"Loading {config}")
    from consistent4d_ns.data.times import checked_fps
    from consistent4d_ns.media.camera_paths import camera_path, path_json

    fps = None if options.fps is None else checked_fps(options.fps)
    content = own_path(path, options) if isinstance(path, Path) else None
    # Seconds to import, which wrong options need not wait for.
    from consistent4d_ns.media.pictures import nerfstudio_path, parse_panels, render_rows, source_of
    from consistent4d_ns.runs import load_run

    run = load_run(config, step, data)
    manager, model = run.pipeline.datamanager, run.pipeline.model
    panels = parse_panels(outputs, model)
    if not isinstance(path, Path):
        content = path_json(camera_path(path, options, source_of(manager)))
    assert content is not None
    cameras, box = nerfstudio_path(content)
    fps = fps or len(cameras) / content["seconds"]
    check_encodable(form, content["render_width"] * len(panels), content["render_height"], fps)
    model.config.render_normals = any(panel.output == "normals" for panel in panels)  # They cost most.
    rows = render_rows(model, manager, cameras, panels, box)
    write_frames(out, form, progress(rows, "Rendering", len(cameras)), fps, overwrite)
    print(f"{out}: {len(cameras)} frames, {len(cameras) / fps:.3g} s, {', '.join(outputs)} of step {run.step}.")


def own_path(file: Path, options: PathOptions) -> dict[str, Any]:
    """A camera path of the user's, at the size that the options ask for.

    Raises:
        InputError: it is none, or an option would change its course.
    """
    if file.suffix != ".json":
        raise InputError(f"there is no camera path {file}: choose from {', '.join(KINDS)}, or give a .json file.")
    given = [name for name, value in dataclasses.asdict(options).items() if value is not None]
    extra = [f"--{name}" for name in given if name not in ("fps", "size")]
    if extra:
        raise InputError(f"{', '.join(extra)} would change the course of {file}: leave out, or change the file.")
    from consistent4d_ns.media.camera_paths import checked_size, read_path

    content = read_path(file)
    if options.size is not None:
        content["render_width"], content["render_height"] = checked_size(options.size)
    return content
