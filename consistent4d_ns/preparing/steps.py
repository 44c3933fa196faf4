"""All steps from a video to frames, in their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from consistent4d_ns.errors import InputError
from consistent4d_ns.files.outputs import new_folder
from consistent4d_ns.messages import say, warn
from consistent4d_ns.preparing.clip import Clip, open_clip
from consistent4d_ns.preparing.cutting import Cut, cut
from consistent4d_ns.preparing.foreground import Foreground, find_foreground
from consistent4d_ns.preparing.layouts import find_layout
from consistent4d_ns.preparing.locating import Located, Progress, locate
from consistent4d_ns.preparing.matting import check_matting
from consistent4d_ns.preparing.options import PrepareOptions
from consistent4d_ns.preparing.segmentation import Segmenter, load_segmenter
from consistent4d_ns.preparing.writing import write

SOURCES = {"alpha": "its alpha channel", "masks": "masks", "key": "the key colour", "network": "a segmentation network"}
"""What tells the object from the background, in words."""


@dataclass(frozen=True)
class Result:
    """What was prepared."""

    frames: int
    size: int
    """Side of the frames in pixels."""
    seconds: float
    """Time between the first frame and the last."""


def prepare(source: Path, out: Path, options: PrepareOptions, overwrite: bool, progress: Progress) -> Result:
    """Cut an object out of a video and write its frames.

    Raises:
        InputError: The source, an option or the output cannot be used, or no object is found.
    """
    with new_folder(out, overwrite) as folder:
        foreground, segmenter = open_source(source, options)
        foreground, located = found(foreground, options, segmenter, progress)
        cuts = cut(foreground, located, options.picture, segmenter, options.object.threshold, progress)
        warn_of_borders(cuts, foreground.clip)
        write(folder, source, options, foreground, located, cuts)
    seconds = foreground.clip.seconds
    return Result(len(cuts), len(cuts[0].rgba), seconds[-1] - seconds[0])


def open_source(source: Path, options: PrepareOptions) -> tuple[Foreground, Segmenter | None]:
    """The chosen frames, and the network that finds their object where one is needed.

    Raises:
        InputError: The source or an option cannot be used, or a library is missing.
    """
    layout = find_layout(source)
    clip = open_clip(layout.frames, options.selection, layout.ending)
    foreground = find_foreground(clip, layout, options.object)
    if foreground.kind != "alpha":
        check_matting()
    segmenter = load_segmenter(options.object.segmenter) if foreground.kind == "network" else None
    height, width = clip.size
    say(
        f"{len(clip)} of {clip.frames.available} frames of {width} x {height}; "
        f"the object comes from {SOURCES[foreground.kind]}."
    )
    return foreground, segmenter


def found(
    foreground: Foreground, options: PrepareOptions, segmenter: Segmenter | None, progress: Progress
) -> tuple[Foreground, Located]:
    """The frames in which the object is seen, and where it is there; says which are left out.

    Raises:
        InputError: It is in none.
    """
    located = locate(foreground, options.object, segmenter, progress)
    seen = located.seen()
    clip = foreground.clip
    if not seen:
        raise InputError(
            f"{clip.frames.source} shows no object in the chosen frames: give another --start and --end, a lower "
            "--threshold, or --masks"
        )
    if len(seen) < len(clip):
        missing = next(i for i in range(len(clip)) if i not in seen)
        warn(
            f"{len(clip) - len(seen)} of {len(clip)} frames show no object and are left out (the first at "
            f"{clip.seconds[missing]:.2f} s)"
        )
    return foreground.only(seen), located.only(seen)


def warn_of_borders(cuts: Sequence[Cut], clip: Clip) -> None:
    """Say in how many frames the object leaves the picture."""
    touching = [i for i, one in enumerate(cuts) if one.touches_border]
    if touching:
        warn(
            f"the object touches the border of the picture in {len(touching)} of {len(cuts)} frames (the first at "
            f"{clip.seconds[touching[0]]:.2f} s), where a part of it may be missing: choose other times with --start "
            "and --end"
        )
