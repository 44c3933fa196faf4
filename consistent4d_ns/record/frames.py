"""Which frames a run is trained on, kept in its folder, so that it is not resumed on others."""

from __future__ import annotations

from pathlib import Path

from consistent4d_ns.files.fingerprints import Fingerprint
from consistent4d_ns.files.outputs import write_values
from consistent4d_ns.record.kept import read_kept

FRAMES = "frames.json"
"""The file in the run's folder."""


def write_frames(folder: Path, frames: Fingerprint) -> None:
    """Write the fingerprint of the frames into a run's folder.

    Raises:
        InputError: it cannot be written.
    """
    write_values(folder / FRAMES, frames)


def read_frames(folder: Path) -> Fingerprint | None:
    """The fingerprint of the frames of a run; None where it is not recorded, as in runs of earlier versions."""
    return read_kept(folder / FRAMES, Fingerprint.parsed, "whether the frames have changed is not known")
