"""Folders as segmentation tools write them: where their frames and masks are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from consistent4d_ns.data.stills import PLAIN_TYPES
from consistent4d_ns.errors import InputError

FRAME_FOLDERS = ("images", "JPEGImages", "frames", "rgb")
"""Names that tools give the folder of frames: Cutie and SAM 2, DAVIS, Track-Anything and others."""
MASK_FOLDERS = ("masks", "Annotations", "mask", "soft_masks")
"""Names that they give the folder of masks."""
MASK_TYPES = (*PLAIN_TYPES, ".npy")
"""Files that can be masks; Track-Anything writes numbers of objects as arrays."""
CUT_OUT = "_rgba"
"""End of the names of frames whose background was removed, beside the frames as they were."""


@dataclass(frozen=True)
class Layout:
    """Where frames and masks are."""

    frames: Path
    """A folder or a file."""
    masks: Path | None = None
    """A folder or a video; None where there are none."""
    ending: str = ""
    """How the names of frames end, before the dot, where others lie beside them."""


def find_layout(source: Path) -> Layout:
    """The frames and masks below a folder; any other path is that of the frames.

    Raises:
        InputError: Masks have no frames beside them, or there are several sequences.
    """
    if not source.is_dir():
        return Layout(source)
    frames = [source / name for name in FRAME_FOLDERS if (source / name).is_dir()]
    masks = [source / name for name in MASK_FOLDERS if (source / name).is_dir()]
    if not frames:
        names = [path.stem for path in source.iterdir() if path.suffix.lower() in PLAIN_TYPES]
        return Layout(source, ending=CUT_OUT if any(name.endswith(CUT_OUT) for name in names) else "")
    return Layout(_sequence(frames[0]), _sequence(masks[0]) if masks else None)


def _sequence(folder: Path) -> Path:
    """The folder itself, or its only sub-folder where its files lie there.

    Raises:
        InputError: There are several sub-folders.
    """
    if any(path.suffix.lower() in MASK_TYPES for path in folder.iterdir()):
        return folder
    below = sorted(path for path in folder.iterdir() if path.is_dir())
    if len(below) > 1:
        names = ", ".join(path.name for path in below[:4])
        raise InputError(f"{folder} holds several sequences ({names}): give one of them, and its masks with --masks")
    return below[0] if below else folder
