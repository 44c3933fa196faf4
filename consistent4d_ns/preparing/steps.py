"""All steps from a video to frames, in their order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from consistent4d_ns.errors import InputError
from consistent4d_ns.files.outputs import new_folder
from consistent4d_ns.messages import say, warn
from consistent4d_ns.preparing.clip import Clip, open_clip
from consistent4d_ns.preparing.cutting import Cut, cropped, cut
from consistent4d_ns.preparing.foreground import Foreground, find_foreground
from consistent4d_ns.preparing.layouts import find_layout
from consistent4d_ns.preparing.locating import Located, Progress, locate, look
from consistent4d_ns.preparing.matting import check_matting
from consistent4d_ns.preparing.options import PrepareOptions
from consistent4d_ns.preparing.segmentation import Segmenter, load_segmenter
from consistent4d_ns.preparing.writing import write

SOURCES = {"alpha": "its alpha channel", "masks": "masks", "key": "the key colour", "network": "a segmentation network"}
"""What tells the object from the background, in words."""


NO_BACKGROUND = {
    "alpha": "make its background transparent, or save it without alpha, so that the object is looked for",
    "masks": "give masks that are dark where the background is",
    "key": "no pixel has the colour of --key; give the one that its background has",
    "network": "give frames in which the background is seen, or --masks",
}
"""What to do where nothing is background, for each source of knowledge."""
NO_OBJECT = {
    "alpha": "frames in which it is opaque",
    "masks": "masks in which it is bright",
    "key": "another --key",
    "network": "a lower --threshold, or --masks",
}
"""What else may be given where nothing is object, likewise."""


@dataclass(frozen=True)
class Result:
    """What was prepared."""

    frames: int
    size: int
    """Side of the frames in pixels."""
    seconds: float
    """Time between the first frame and the last."""


def prepare(
    source: Path,
    out: Path,
    options: PrepareOptions,
    overwrite: bool,
    progress: Progress,
    estimate: Callable[[Sequence[Cut]], float],
    review: Callable[[Preparation], None] | None = None,
) -> Result:
    """Cut an object out of a video and write its frames.

    Args:
        source: What the user gave.
        out: The folder to write.
        options: What is asked for.
        overwrite: Replace frames that were prepared earlier.
        progress: Shows how far each step is.
        estimate: Estimates the elevation of the camera in degrees, where the options ask for that.
        review: Called with the result before it is written; may change its options.

    Raises:
        InputError: The source, an option or the output cannot be used, or no object is found.
    """
    with new_folder(out, "prepare", overwrite) as folder:
        foreground, segmenter = open_source(source, options)
        preparation = Preparation(foreground, segmenter, options, progress)
        if review is not None:
            review(preparation)
        cuts = preparation.cuts
        warn_of_borders(cuts, preparation.seen.clip)
        elevation = preparation.options.picture.elevation
        if elevation == "auto":
            elevation = estimate(cuts)
        write(folder, source, preparation.options, elevation, preparation.seen, preparation.located, cuts)
    seconds = preparation.seen.clip.seconds
    return Result(len(cuts), len(cuts[0].rgba), seconds[-1] - seconds[0])


class Preparation:
    """The steps with their results, of which a change of options repeats only those that depend on it."""

    options: PrepareOptions
    seen: Foreground
    """The frames in which the object is seen."""
    located: Located
    """Where it is there."""
    cuts: list[Cut]
    """What becomes the frames."""

    def __init__(
        self, foreground: Foreground, segmenter: Segmenter | None, options: PrepareOptions, progress: Progress
    ) -> None:
        """Raises: InputError: a frame is damaged, or no object is found."""
        self._foreground, self._segmenter, self._progress = foreground, segmenter, progress
        self._looks = look(foreground, segmenter, progress)
        self._cut(options)

    @property
    def starts_with_first(self) -> bool:
        """Whether the object is seen in the first chosen frame, to which hints refer."""
        return self.seen.clip.indices[0] == self._foreground.clip.indices[0]

    def change(self, options: PrepareOptions) -> None:
        """Take other options about the object or the picture; those about frames stay.

        Raises:
            InputError: No object is found with them; then everything stays as it was.
        """
        options.check()
        options.object.check_inside(self._foreground.clip.size)
        if options.object != self.options.object:
            self._cut(options)
        else:
            self.cuts, self.options = cropped(self._cut_outs, options.picture), options

    def _cut(self, options: PrepareOptions) -> None:
        """Everything after the first look."""
        located = locate(self._foreground, self._looks, options.object, self._progress)
        seen, located = found(self._foreground, located)
        arguments = (seen, located, options.picture, self._segmenter, options.object.threshold, self._progress)
        self._cut_outs = cut(*arguments)
        self.seen, self.located, self.options = seen, located, options
        self.cuts = cropped(self._cut_outs, options.picture)


def open_source(source: Path, options: PrepareOptions) -> tuple[Foreground, Segmenter | None]:
    """The chosen frames, and the network that finds their object where one is needed.

    Raises:
        InputError: The source or an option cannot be used, or a library is missing.
    """
    layout = find_layout(source)
    clip = open_clip(layout.frames, options.selection, layout.ending)
    options.object.check_inside(clip.size)
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


def found(foreground: Foreground, located: Located) -> tuple[Foreground, Located]:
    """The frames in which the object is seen; says which are left out.

    Raises:
        InputError: It is in none.
    """
    seen = located.seen()
    clip = foreground.clip
    if all(mask.all() for mask in located.masks):
        raise InputError(f"{clip.frames.source} shows nothing but object: {NO_BACKGROUND[foreground.kind]}")
    if not seen:
        raise InputError(
            f"{clip.frames.source} shows no object in the chosen frames: give another --start and --end, or "
            f"{NO_OBJECT[foreground.kind]}"
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
    if len(touching) == len(cuts):
        warn(
            "the object touches the border of the picture in all frames: look at preview.png, whether background was "
            "kept or a part of the object is missing"
        )
    elif touching:
        warn(
            f"the object touches the border of the picture in {len(touching)} of {len(cuts)} frames (the first at "
            f"{clip.seconds[touching[0]]:.2f} s), where a part of it may be missing: choose other times with --start "
            "and --end"
        )
