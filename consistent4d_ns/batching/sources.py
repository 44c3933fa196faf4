"""What the data of jobs are: videos and folders of frames, with the object cut out already or not."""

from __future__ import annotations

from pathlib import Path

from natsort import natsorted

from consistent4d_ns.batching.steps import Input, Reads
from consistent4d_ns.data.prepared import RECORD
from consistent4d_ns.data.stills import ANIMATION_TYPES, PLAIN_TYPES
from consistent4d_ns.data.videos import VIDEO_TYPES
from consistent4d_ns.errors import InputError
from consistent4d_ns.evaluation.layout import VIEWS
from consistent4d_ns.preparing.clip import open_clip
from consistent4d_ns.preparing.layouts import FRAME_FOLDERS, MASK_FOLDERS, MASK_TYPES
from consistent4d_ns.preparing.options import SelectionOptions

SUFFIXES = (*VIDEO_TYPES, *(kind for kind in ANIMATION_TYPES if kind != ".png"))
"""Files that are jobs of a folder; a PNG among videos is more likely a picture about them than one to be trained on."""
INPUT = "input"
"""Folder of the input view, where other views lie beside it."""
META = "meta.json"
"""File of the cameras of views, beside their folders."""
READ = (*dict.fromkeys((*MASK_TYPES, *ANIMATION_TYPES, *VIDEO_TYPES, ".json")),)
"""How the names of files end that steps read in folders of data."""


def needs_preparing(path: Path) -> bool:
    """Whether the object of a video, an animation or a folder is still to be cut out.

    It is not where `consistent4d prepare` wrote the frames, where other views lie beside them, and where the first
    frame has transparent pixels. What cannot be read is left to `consistent4d prepare`, which says why.
    """
    if (path / RECORD).is_file() or (path / INPUT).is_dir():
        return False
    try:
        return not open_clip(path, SelectionOptions(frames=1)).alpha
    except InputError:
        return True


def sequences_in(folder: Path) -> list[Path]:
    """The videos, animations and folders of frames in a folder; what is hidden is left out."""
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    return natsorted(entry for entry in entries if (is_sequence(entry) if entry.is_dir() else is_video(entry)))


def is_video(path: Path) -> bool:
    """Whether a path is that of a video or an animation, by its name."""
    return path.is_file() and path.name.lower().endswith(SUFFIXES)


def is_sequence(folder: Path) -> bool:
    """Whether a folder holds pictures, or a folder of them as segmentation tools and data sets have it."""
    pictures = (entry.name.lower().endswith(PLAIN_TYPES) for entry in folder.iterdir())
    return any(pictures) or any((folder / name).is_dir() for name in (INPUT, *FRAME_FOLDERS))


def frames_read(data: Path) -> list[Input]:
    """What a training reads of a path: the file or the folder of the input view, and what says where its camera is."""
    if (data / INPUT).is_dir():
        return [Input(str(data / INPUT), "frames"), Input(str(data / META))]
    frames = Input(str(data), "frames")
    return [frames] if data.is_file() else [frames, Input(str(data / RECORD))]  # Frames may not be prepared yet.


def footage_read(data: Path) -> list[Input]:
    """What `consistent4d prepare` reads of a path: the file, or folders of frames and masks (`layouts.find_layout`)."""
    frames = [data / name for name in FRAME_FOLDERS if (data / name).is_dir()]
    masks = [data / name for name in MASK_FOLDERS if (data / name).is_dir()]
    if not frames:
        return [Input(str(data), "footage")]
    return [*_inside(frames[0], "footage"), *(each for folder in masks[:1] for each in _inside(folder, "all"))]


def truth_read(truth: Path, name: str) -> list[Input]:
    """What `consistent4d eval` reads of a folder of truth: the views of an object, and their cameras."""
    found = []
    for folder in (folder for folder in (truth, truth / name) if folder.is_dir()):
        views = (Input(str(view), "views") for view in natsorted(folder.glob(VIEWS)))
        found += [Input(str(folder / META)), *views]
    return found


def _inside(folder: Path, reads: Reads) -> list[Input]:
    """A folder and those in it."""
    folders = natsorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [Input(str(path), reads) for path in (folder, *folders)]
