"""The images of an evaluation: OBJECT/eval_V/i.png below the truth and below the predictions.

What is missing, superfluous or of another size is said in one line each, and the rest is compared.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from natsort import natsorted

from consistent4d_ns.data.files import by, reading
from consistent4d_ns.data.stills import PLAIN_TYPES, read_plain
from consistent4d_ns.errors import InputError
from consistent4d_ns.evaluation.images import Picture, on_white
from consistent4d_ns.files.outputs import check_whole

VIEWS = "eval_*"
"""Folders of views."""
Note = Callable[[str], object]
"""Is told one line about something that is not as it should be."""
Clip = dict[int, Picture]
"""The pictures of a view by the numbers of their frames, in their order."""


def find_objects(root: Path) -> dict[str, Path]:
    """Folders of the objects by name: those in `root` that hold views, or `root` itself if it holds some.

    Raises:
        InputError: there is none, or one is half replaced.
    """
    found = _find_objects(root)
    for folder in found.values():
        check_whole(folder)
    return found


def _find_objects(root: Path) -> dict[str, Path]:
    if view_folders(root):
        return {root.resolve().name: root}
    with reading(root):
        entries = natsorted(root.iterdir()) if root.is_dir() else []
    found = {entry.name: entry for entry in entries if view_folders(entry)}
    if not found:
        raise InputError(f"{root} holds no views: give a folder with eval_0/, eval_1/, ..., or one of such folders.")
    return found


def view_folders(folder: Path) -> dict[str, Path]:
    """The folders of an object's views, in natural order of their names."""
    return {entry.name: entry for entry in natsorted(folder.glob(VIEWS)) if entry.is_dir()}


def frame_files(folder: Path, note: Note) -> dict[int, Path]:
    """The images of a view by the number at the end of their names, in order.

    Raises:
        InputError: there is none, or two have the same number.
    """
    files: dict[int, Path] = {}
    ignored = []
    with reading(folder):
        entries = natsorted(folder.iterdir())
    for entry in entries:
        number = number_of(entry.name)
        if number is None:
            ignored.append(entry.name)
        elif number in files:
            raise InputError(f"{folder} holds {files[number].name} and {entry.name}: which is frame {number}?")
        else:
            files[number] = entry
    if not files:
        raise InputError(f"{folder} holds no numbered images: put 0.png, 1.png, ... there.")
    if ignored:
        note(f"{folder}: {len(ignored)} files are no numbered images and are ignored, first {ignored[0]}.")
    return dict(sorted(files.items()))


def number_of(name: str) -> int | None:
    """The number of the frame that a picture shows, at the end of its name; None of a file that is none."""
    number = re.search(r"(\d+)$", Path(name).stem)
    return int(number[1]) if number and name.lower().endswith(PLAIN_TYPES) and not name.startswith(".") else None


def read_clips(folder: Path, note: Note) -> dict[str, Clip]:
    """The views of an object, on white.

    Raises:
        InputError: an image is damaged, or a view has none.
    """
    clips: dict[str, Clip] = {}
    transparent: list[str] = []
    for name, view in view_folders(folder).items():
        files = frame_files(view, note)
        images = {number: read_plain(path) for number, path in files.items()}
        if any(image.shape[2] == 4 and image[..., 3].min() < 255 for image in images.values()):
            transparent.append(name)
        clips[name] = {number: on_white(image) for number, image in images.items()}
    if transparent:
        note(f"{folder}: {', '.join(transparent)} are transparent and are put on white.")
    return clips


def check_pair(name: str, predicted: dict[str, Clip], truth: dict[str, Clip], note: Note) -> list[str]:
    """Views of an object that both sides have, in order; says what else there is.

    Raises:
        InputError: there is none.
    """
    common = [view for view in truth if view in predicted]
    if not common:
        raise InputError(f"{name}: truth and prediction have no view in common ({_names(truth)}; {_names(predicted)}).")
    if missing := [view for view in truth if view not in predicted]:
        note(f"{name}: the prediction lacks {', '.join(missing)}, which are left out.")
    if extra := [view for view in predicted if view not in truth]:
        note(f"{name}: the truth lacks {', '.join(extra)}, which are left out.")
    for view in common:
        _check_frames(f"{name}/{view}", predicted[view], truth[view], note)
    _check_sizes(name, {"prediction": predicted, "truth": truth}, common, note)
    return common


def frame_pairs(predicted: Clip, truth: Clip) -> list[tuple[int, int]]:
    """Numbers of the frames that belong together: by order where there are equally many, else by number."""
    if len(predicted) == len(truth):
        return list(zip(predicted, truth, strict=True))
    return [(number, number) for number in truth if number in predicted]


def _names(clips: dict[str, Clip]) -> str:
    return ", ".join(clips) or "none"


def _check_frames(where: str, predicted: Clip, truth: Clip, note: Note) -> None:
    """Raises: InputError: no frame has a counterpart."""
    if not frame_pairs(predicted, truth):
        raise InputError(f"{where}: no frame of the prediction has the number of one of the truth: number them alike.")
    if len(predicted) == len(truth):
        if list(predicted) != list(truth):
            note(f"{where}: frames are numbered differently, and are compared in their order.")
        return
    counts = f"{len(predicted)} predicted frames, {len(truth)} true ones"
    lacking = _first(sorted(truth.keys() - predicted.keys()), "the prediction lacks")
    extra = _first(sorted(predicted.keys() - truth.keys()), "the truth lacks")
    note(f"{where}: {counts}; {' and '.join(filter(None, (lacking, extra)))}.")


def _first(numbers: list[int], what: str) -> str:
    if not numbers:
        return ""
    return f"{what} {len(numbers)} of them, first {numbers[0]}" if len(numbers) > 1 else f"{what} {numbers[0]}"


def _check_sizes(name: str, sides: dict[str, dict[str, Clip]], views: list[str], note: Note) -> None:
    sizes = {
        side: sorted({np.shape(image)[:2] for view in views for image in clips[view].values()})
        for side, clips in sides.items()
    }
    if len({size for found in sizes.values() for size in found}) > 1:
        shown = "; ".join(f"{side} {', '.join(map(by, found))}" for side, found in sizes.items())
        note(f"{name}: images differ in size ({shown}); all are resized to the same.")
