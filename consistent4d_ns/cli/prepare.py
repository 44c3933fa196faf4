"""`consistent4d prepare`: from an ordinary video to frames to train on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from consistent4d_ns.cli.progress import announce, progress
from consistent4d_ns.errors import InputError
from consistent4d_ns.files.outputs import check_new_folder
from consistent4d_ns.preparing.options import ObjectOptions, PictureOptions, PrepareOptions, SelectionOptions

Flat = tyro.conf.arg(name="", prefix_name=False)
"""Annotation of a group of options whose names have no prefix."""


def prepare(
    source: Annotated[Path, tyro.conf.Positional],
    out: Annotated[Path, tyro.conf.Positional],
    /,
    selection: Annotated[SelectionOptions, Flat] = SelectionOptions(),  # noqa: B008
    object: Annotated[ObjectOptions, Flat] = ObjectOptions(),  # noqa: B008
    picture: Annotated[PictureOptions, Flat] = PictureOptions(),  # noqa: B008
    overwrite: bool = False,
) -> None:
    """Cut an object out of a video: frames with alpha, all cropped by one square, for `ns-train ... --data OUT`.

    Where the object is, an alpha channel tells, or masks, or a key colour, or a segmentation network (extra `prepare`).

    Args:
        source: A video (mp4, mov, mkv, webm), an animation (gif, apng, webp) or a folder of pictures; or a folder that
            a segmentation tool has written, with frames and masks.
        out: The folder to write: 0.png and so on, preview.png and prepare.json.
        selection: Which frames to take.
        object: What the object is.
        picture: What is written.
        overwrite: Replace frames that were prepared earlier.
    """
    options = PrepareOptions(selection, object, picture)
    options.check()
    check_new_folder(out, overwrite)
    if not source.exists():
        raise InputError(f"{source} does not exist: give a video or a folder of pictures.")
    announce(f"Opening {source}")
    from consistent4d_ns.preparing import steps

    result = steps.prepare(source, out, options, overwrite, progress)
    print(f"{out}: {result.frames} frames of {result.size} x {result.size} pixels, {result.seconds:.2f} seconds.")
    print(f"Look at {out / 'preview.png'}, then: ns-train consistent4d-mini --data {out}")
