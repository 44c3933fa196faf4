"""What the data of jobs are: videos and folders of frames, with the object cut out already or not."""

from __future__ import annotations

from pathlib import Path

from natsort import natsorted

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
PICTURES = (*dict.fromkeys((*MASK_TYPES, *ANIMATION_TYPES, *VIDEO_TYPES)),)
"""How the names of files end that hold pictures."""
READ = (*PICTURES, ".json")
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


def frames_read(data: Path) -> list[Path]:
    """What a training reads of a path: the file or the folder of the input view, and what says where its camera is."""
    if (data / INPUT).is_dir():
        return [data / INPUT, data / META]
    return [data] if data.is_file() else [data, data / RECORD]  # Frames may not be prepared yet.


def footage_read(data: Path) -> list[Path]:
    """What `consistent4d prepare` reads of a path: the file, or folders of frames and masks."""
    folders = [data / name for name in (*FRAME_FOLDERS, *MASK_FOLDERS) if (data / name).is_dir()]
    return [data, *(inside for folder in folders for inside in (folder, *_folders_in(folder)))]


def truth_read(truth: Path, name: str) -> list[Path]:
    """What `consistent4d eval` reads of a folder of truth: the views of an object, and their cameras."""
    folders = [folder for folder in (truth, truth / name) if folder.is_dir()]
    return [path for folder in folders for path in (folder / META, *natsorted(folder.glob(VIEWS)))]


def _folders_in(folder: Path) -> list[Path]:
    return natsorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
