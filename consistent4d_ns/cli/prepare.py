"""`consistent4d prepare`: from an ordinary video to frames to train on."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from consistent4d_ns.cli.help_texts import OutArgument
from consistent4d_ns.cli.ports import free_port
from consistent4d_ns.cli.progress import announce, progress
from consistent4d_ns.errors import InputError
from consistent4d_ns.files.outputs import check_new_folder
from consistent4d_ns.preparing.options import ObjectOptions, PictureOptions, PrepareOptions, SelectionOptions

if TYPE_CHECKING:
    from consistent4d_ns.preparing.cutting import Cut
    from consistent4d_ns.preparing.steps import Preparation

Flat = tyro.conf.arg(name="", prefix_name=False)
"""Annotation of a group of options whose names have no prefix."""
CLEAR_SPREAD = 4.0
"""Spread of an estimated elevation in degrees from which on it is worth a look (docs/results.md)."""


def prepare(
    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")],
    out: OutArgument,
    /,
    selection: Annotated[SelectionOptions, Flat] = SelectionOptions(),  # noqa: B008
    object: Annotated[ObjectOptions, Flat] = ObjectOptions(),  # noqa: B008
    picture: Annotated[PictureOptions, Flat] = PictureOptions(),  # noqa: B008
    overwrite: bool = False,
    review: bool = False,
    port: int | None = None,
) -> None:
    """Cut an object out of a video: frames with alpha, all cropped by one square, for `ns-train ... --data OUT`.

    An alpha channel, masks, a key colour or a segmentation network (extra `prepare`) says where the object is.

    Args:
        source: A video (mp4, mov, mkv, webm), an animation (gif, apng, webp) or a folder of pictures; or a folder that
            a segmentation tool has written, with frames and masks.
        out: The folder to write: 0.png and so on, preview.png and prepare.json.
        selection: Which frames to take.
        object: What the object is.
        picture: What is written.
        overwrite: Replace frames that were prepared earlier.
        review: Before anything is written, open a page at localhost on which the result can be looked at and corrected.
        port: Port of that page; default: 7007 or, if that is taken, any free one.
    """
    options = PrepareOptions(selection, object, picture)
    options.check()
    check_new_folder(out, "prepare", overwrite)
    if not source.exists():
        raise InputError(f"{source} does not exist: give a video, a picture or a folder of pictures.")
    serve = reviewer(port) if review else None
    announce(f"Opening {source}")
    from consistent4d_ns.preparing import steps

    result = steps.prepare(source, out, options, overwrite, progress, estimated_elevation, serve)
    still, size = result.frames == 1, f"{result.size} x {result.size} pixels"
    print(
        f"{out}: 1 frame of {size}."
        if still
        else f"{out}: {result.frames} frames of {size}, {result.seconds:.2f} seconds."
    )
    method = "consistent4d-image-mini" if still else "consistent4d-mini"
    print(f"Look at {out / 'preview.png'}, then: ns-train {method} --data {shlex.quote(str(out))}")


def reviewer(port: int | None) -> Callable[[Preparation], None]:
    """What shows a result on a page and waits until it is accepted.

    Raises:
        InputError: This machine cannot listen on the port.
    """
    chosen = free_port("127.0.0.1", port)

    def show(preparation: Preparation) -> None:
        from consistent4d_ns.preparing.review import review

        review(preparation, chosen, lambda address: print(f"Review the result at {address}", flush=True))

    return show


def estimated_elevation(cuts: Sequence[Cut]) -> float:
    """The elevation in degrees that the bundled prior finds for what was cut out; says how sure it is.

    Raises:
        InputError: The prior cannot be loaded.
    """
    announce("Loading the prior, which estimates the elevation of the camera")
    import torch

    from consistent4d_ns.data.images import premultiply
    from consistent4d_ns.messages import warn
    from consistent4d_ns.targets.elevation import estimate_from_frames

    rgba = torch.stack([torch.from_numpy(premultiply(cut.rgba)).movedim(-1, 0) for cut in cuts])
    found = estimate_from_frames(
        rgba, progress=lambda frames: progress(frames, "Estimating the elevation", len(frames))
    )
    print(f"The camera's elevation seems to be {found.degrees:.1f} degrees.")
    if found.spread >= CLEAR_SPREAD:
        warn(
            "this estimate is not clear: look at the frames; if it is wrong, train with "
            "--pipeline.datamanager.dataparser.elevation DEGREES, or prepare again with --elevation DEGREES."
        )
    return round(found.degrees, 1)
