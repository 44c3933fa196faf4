"""Which frames a run is trained on, kept in its folder, so that it is not resumed on others."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from consistent4d_ns.files.fingerprints import Fingerprint
from consistent4d_ns.files.json_files import read_json
from consistent4d_ns.files.outputs import new_file
from consistent4d_ns.messages import warn

FRAMES = "frames.json"
"""The file in the run's folder."""


def write_frames(folder: Path, frames: Fingerprint) -> None:
    """Write the fingerprint of the frames into a run's folder.

    Raises:
        InputError: it cannot be written.
    """
    with new_file(folder / FRAMES, overwrite=True) as file:
        file.write_text(json.dumps(dataclasses.asdict(frames), indent=1) + "\n", encoding="utf-8")


def read_frames(folder: Path) -> Fingerprint | None:
    """The fingerprint of the frames of a run; None where it is not recorded, as in runs of earlier versions."""
    file = folder / FRAMES
    if not file.exists():
        return None
    try:
        return Fingerprint.parsed(read_json(file))
    except (OSError, ValueError, TypeError, LookupError):
        warn(f"{file} is damaged: whether the frames have changed is not known.")
        return None
