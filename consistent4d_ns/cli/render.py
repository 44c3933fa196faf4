"""`consistent4d render`: a video of a finished run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import tyro

from consistent4d_ns.cli.progress import announce, progress
from consistent4d_ns.config_files import config_file
from consistent4d_ns.errors import InputError
from consistent4d_ns.media.encoding import (
    Format,
    check_encodable,
    check_free,
    format_of,
    needs_even_sides,
    write_frames,
)
from consistent4d_ns.media.path_options import KINDS, Kind, PathOptions
from consistent4d_ns.media.tiles import check_levels, parse_tiles


def render(
    config: Annotated[Path, tyro.conf.Positional],
    out: Annotated[Path, tyro.conf.Positional],
    /,
    options: Annotated[PathOptions, tyro.conf.arg(name="")],
    path: Kind | Path = "orbit-in-time",
    outputs: tuple[str, ...] = ("input", "rgb", "depth"),
    format: Format | None = None,
    step: int | None = None,
    data: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Render a finished run: the input and what was reconstructed from it, side by side.

    Loads no prior. By default time passes as fast as it was filmed.

    Args:
        config: The run's config.yml, or its folder.
        out: What to write: .mp4 (H.264, on white), .webm (VP9 with alpha), .gif (on white), or a name without suffix
            for a folder of PNG frames with alpha.
        path: Kind of camera path (see `consistent4d camera-path --help`), or a .json file of your own, from the viewer.
        outputs: Images from left to right: input, rgb, depth, normals, accumulation, and rgb_L, depth_L,
            accumulation_L of cascade level L. NAME@DEGREES is seen from so many degrees further around: rgb rgb@90.
        format: Format, where the name of OUT does not say it.
        options: The course of the path. A path of your own keeps its course; it may get another --fps and --size.
        step: Training step of the checkpoint; default: the latest.
        data: The frames, if they were moved since.
        overwrite: Replace an earlier output.
    """
    kind = format_of(out, format)
    tiles = parse_tiles(outputs)
    check_free(out, kind, overwrite)
    config = config_file(config)
    announce(f"Loading {config}")
    own = checked_path(path, options, kind, len(tiles))
    # These imports take seconds, so whatever can be checked is checked before.
    from consistent4d_ns.media.camera_paths import camera_path, path_json
    from consistent4d_ns.media.pictures import input_video, nerfstudio_path, render_rows
    from consistent4d_ns.runs import load_run

    run = load_run(config, step, data)
    manager, model = run.pipeline.datamanager, run.pipeline.model
    check_levels(tiles, model.field.num_levels)
    video = input_video(manager)
    # Frames of an odd size are rendered one pixel larger where the format needs an even one.
    video = dataclasses.replace(video, size=video.size + (video.size % 2 if needs_even_sides(kind) else 0))
    content = own if isinstance(path, Path) else path_json(camera_path(path, options, video))
    cameras, box = nerfstudio_path(content)
    fps = options.fps or len(cameras) / content["seconds"]
    check_encodable(kind, content["render_width"] * len(tiles), content["render_height"], fps)
    model.config.render_normals = any(tile.output == "normals" for tile in tiles)  # They take the most time.
    rows = render_rows(model, manager, cameras, tiles, box)
    write_frames(out, kind, progress(rows, "Rendering", len(cameras)), fps, overwrite)
    print(f"{out}: {len(cameras)} frames, {len(cameras) / fps:.3g} s, {', '.join(outputs)} of step {run.step}.")


def checked_path(path: Kind | Path, options: PathOptions, kind: Format, tiles: int) -> dict[str, Any]:
    """A camera path of the user's, or one of a kind for an input of which nothing is known yet.

    Raises:
        InputError: an option cannot be used, whatever the input.
    """
    from consistent4d_ns.data.times import checked_fps
    from consistent4d_ns.media.camera_paths import InputVideo, camera_path, path_json

    if options.fps is not None:
        checked_fps(options.fps)
    content = own_path(path, options) if isinstance(path, Path) else path_json(camera_path(path, options, InputVideo()))
    fps = options.fps or len(content["camera_path"]) / content["seconds"]
    check_encodable(kind, content["render_width"] * tiles, content["render_height"], fps)
    return content


def own_path(file: Path, options: PathOptions) -> dict[str, Any]:
    """A camera path from a file, at the size that the options give.

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
