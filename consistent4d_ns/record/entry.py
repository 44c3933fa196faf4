"""What a training does first in its run's folder; the run of an earlier one stays as it is until then."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from consistent4d_ns.files.fingerprints import Fingerprint
from consistent4d_ns.files.outputs import new_file, refusals
from consistent4d_ns.record.frames import write_frames


@dataclass(frozen=True)
class Entry:
    """How a folder becomes that of a training."""

    config: Path
    """The configuration's file."""
    text: str
    """What it is to hold."""
    frames: Fingerprint | None
    """The data trained on; None: not to be recorded here."""
    removed: tuple[Path, ...] = ()
    """Files of an earlier run that is replaced."""

    def make(self) -> None:
        """Remove, then write.

        Raises:
            InputError: the folder cannot be changed.
        """
        with refusals(self.config.parent):
            for file in self.removed:
                file.unlink(missing_ok=True)
        with new_file(self.config, overwrite=True) as file:
            file.write_text(self.text, encoding="utf-8")
        if self.frames is not None:
            write_frames(self.config.parent, self.frames)
