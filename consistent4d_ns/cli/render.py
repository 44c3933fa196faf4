"""`consistent4d render`: a video of a finished run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from consistent4d_ns.cli.help_texts import OutArgument, RunArgument
from consistent4d_ns.cli.progress import announce, progress
from consistent4d_ns.enhancing.options import MAX_SIDE
from consistent4d_ns.enhancing.settings import read_settings
from consistent4d_ns.errors import InputError
from consistent4d_ns.files.config_files import config_file
from consistent4d_ns.media.encoding import (
    Format,
    check_encodable,
    check_free,
    format_of,
    needs_even_sides,
    write_frames,
)
from consistent4d_ns.media.path_options import KINDS, Kind, PathOptions
from consistent4d_ns.media.tiles import INPUT, Tile, check_levels, parse_tiles

OUTPUTS = ("input", "rgb", "depth")
"""What is shown by default."""
ENHANCED = "rgb"
"""Output that an enhancer changes, seen from any side."""


def render(
    config: RunArgument,
    out: OutArgument,
    /,
    options: Annotated[PathOptions, tyro.conf.arg(name="")],
    path: Kind | Path = "orbit-in-time",
    outputs: tuple[str, ...] | None = None,
    format: Format | None = None,
    enhance: Path | None = None,
    step: int | None = None,
    data: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Render a finished run: the input and its reconstruction, side by side.

    Loads no prior. By default the video plays at the speed of the input video. Of a run that was trained on one image,
    it is an orbit of 4 seconds.

    Args:
        config: The run's config.yml, or its folder.
        out: Output: .mp4 (H.264, on white), .webm (VP9 with alpha), .gif (on white), or a name without suffix for a
            folder of PNG frames with alpha.
        path: Kind of camera path (see `consistent4d camera-path --help`), or a .json file, for example from the viewer.
        outputs: Images from left to right: input, rgb, depth, normals, accumulation, and rgb_L, depth_L,
            accumulation_L of level L of the field, from 0, the coarsest; default: input rgb depth, without input of a
            run that was trained from a prompt. NAME@DEGREES is seen from an azimuth that many degrees larger: rgb@90.
        format: Output format, if the name of OUT does not determine it.
        enhance: Folder that `consistent4d enhance` wrote: rgb is enhanced, by default at the size of that training.
        options: Trajectory, length and image size of the path; for a .json file only --fps and --size may be given.
        step: Training step of the checkpoint; default: the latest.
        data: Where the run's frames are now, if they were moved.
        overwrite: Replace existing output.
    """
    kind = format_of(out, format)
    tiles = parse_tiles(OUTPUTS if outputs is None else outputs)
    check_free(out, kind, overwrite)
    if enhance is not None:
        options = options_to_enhance(enhance, tiles, path, options)
    config = config_file(config, out)
    announce(f"Loading {config}")
    checked = checked_path(path, options, kind, len(tiles))
    if enhance is not None:
        check_enhanceable(checked)
    # Imported only now, because this takes seconds: whatever can be checked without the run has been checked.
    from consistent4d_ns.media.camera_paths import camera_path, path_json
    from consistent4d_ns.media.pictures import input_video, nerfstudio_path, render_rows
    from consistent4d_ns.runs import load_run

    run = load_run(config, step, data)
    manager, model = run.pipeline.datamanager, run.pipeline.model
    check_levels(tiles, model.field.num_levels)
    if outputs is None and not manager.has_frames:
        tiles = [tile for tile in tiles if tile.output != INPUT]
    if any(tile.output == INPUT for tile in tiles):
        manager.check_frames(f"--outputs {INPUT}")
    video = input_video(manager)
    # Frames of an odd size are rendered one pixel larger if the format needs an even size.
    video = dataclasses.replace(video, size=video.size + (video.size % 2 if needs_even_sides(kind) else 0))
    content = checked if isinstance(path, Path) else path_json(camera_path(path, options, video))
    cameras, box = nerfstudio_path(content)
    if video.frames == 1 and cameras.times is not None:
        cameras.times.zero_()  # There is no other time, whatever a file says.
    fps = options.fps or len(cameras) / content["seconds"]
    check_encodable(kind, content["render_width"] * len(tiles), content["render_height"], fps)
    # Normals take the most time, so they are rendered only if they are shown.
    model.config.render_normals = any(tile.output == "normals" for tile in tiles)
    rows = render_rows(model, manager, cameras, tiles, box)
    if enhance is not None:
        from consistent4d_ns.enhancing.enhancer import enhanced_rows, load_enhancer

        rows = enhanced_rows(rows, [tile.output == ENHANCED for tile in tiles], load_enhancer(enhance, model.device))
    write_frames(out, kind, progress(rows, "Rendering", len(cameras)), fps, overwrite)
    print(f"{out}: {len(cameras)} frames, {len(cameras) / fps:.3g} s, {', '.join(map(str, tiles))} of step {run.step}.")


def options_to_enhance(enhancer: Path, tiles: Sequence[Tile], path: Kind | Path, options: PathOptions) -> PathOptions:
    """The options of a path, at the size that an enhancer was trained at unless another is given.

    Raises:
        InputError: there is no such enhancer, nothing that it enhances, or the images are too large for it.
    """
    settings = read_settings(enhancer)
    if not any(tile.output == ENHANCED for tile in tiles):
        raise InputError(f"--enhance changes {ENHANCED}, which --outputs lacks: add it, or leave out --enhance.")
    if options.size is None and not isinstance(path, Path):
        options = dataclasses.replace(options, size=settings["size"])
    return options


def check_enhanceable(content: dict[str, Any]) -> None:
    """Raises: InputError: the images of a camera path are too large for an enhancer."""
    width, height = content["render_width"], content["render_height"]
    if max(width, height) > MAX_SIDE:
        raise InputError(f"--enhance takes images of at most {MAX_SIDE} pixels, not {width} x {height}: give --size.")


def checked_path(path: Kind | Path, options: PathOptions, kind: Format, tiles: int) -> dict[str, Any]:
    """The camera path from a file, or one of the given kind for a default input video: the run is not loaded yet.

    Raises:
        InputError: an option is invalid, whatever the run.
    """
    from consistent4d_ns.data.times import checked_fps
    from consistent4d_ns.media.camera_paths import InputVideo, camera_path, path_json

    if options.fps is not None:
        checked_fps(options.fps)
    if isinstance(path, Path):
        content = path_from_file(path, options)
    else:
        content = path_json(camera_path(path, options, InputVideo()))
    fps = options.fps or checked_fps(len(content["camera_path"]) / content["seconds"])
    check_encodable(kind, content["render_width"] * tiles, content["render_height"], fps)
    return content


def path_from_file(file: Path, options: PathOptions) -> dict[str, Any]:
    """A camera path from a file, with the image size of the options if they give one.

    Raises:
        InputError: the file is not a camera path, or an option would change its trajectory.
    """
    if file.suffix != ".json":
        raise InputError(f"there is no camera path {file}: choose from {', '.join(KINDS)}, or give a .json file.")
    given = [name for name, value in dataclasses.asdict(options).items() if value is not None]
    extra = [f"--{name}" for name in given if name not in ("fps", "size")]
    if extra:
        raise InputError(f"{', '.join(extra)} would change the trajectory of {file}: leave out, or change the file.")
    from consistent4d_ns.media.camera_paths import checked_size, read_path

    content = read_path(file)
    if options.size is not None:
        content["render_width"], content["render_height"] = checked_size(options.size)
    return content
