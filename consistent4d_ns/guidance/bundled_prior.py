"""The small prior that comes with this package: see `bundled/MODEL_CARD.md`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from consistent4d_ns.errors import InputError
from consistent4d_ns.guidance.checksums import LIST

NAME = "bundled"
"""Its name as `guidance.prior`. It takes precedence over a folder of that name, which is given as `./bundled`."""
CONVENTION: Final = "zero123"
"""The camera convention that it was trained with; its files do not name one."""
FOLDER = Path(__file__).with_name("bundled")
"""Its folder: package data in the diffusers layout, with checksums."""


def folder() -> Path:
    """The folder of the bundled prior.

    Raises:
        InputError: This installation does not include it.
    """
    if not (FOLDER / LIST).is_file():
        raise InputError(
            f"--pipeline.guidance.prior {NAME}: this installation has no weights in {FOLDER}; run `pip install .` "
            "in a complete "
            "clone of consistent4d_ns, or name another prior with --pipeline.guidance.prior."
        )
    return FOLDER
