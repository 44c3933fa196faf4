"""Writes a full-size Zero123 with random weights, so that whole runs can be timed without a download.

    python -m benchmarks.random_prior random-zero123
    ns-train consistent4d --data DATA --pipeline.guidance.prior random-zero123 --vis tensorboard

Such a run takes as much time and memory as one with Zero123-XL, but learns nothing about unseen sides. The folder has
2.5 GB.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from consistent4d_ns.errors import show_input_errors_in_one_line
from consistent4d_ns.guidance.random_prior import random_networks
from consistent4d_ns.guidance.saving import save_folder


@dataclass
class Options:
    """Options of the script."""

    folder: Annotated[Path, tyro.conf.Positional]
    """A new or empty folder."""


def main(options: Options) -> None:
    """Write the prior."""
    show_input_errors_in_one_line()
    save_folder(random_networks("full", "cpu", 0), options.folder)
    print(f"{options.folder}: {sum(file.stat().st_size for file in options.folder.rglob('*')) / 1e9:.1f} GB")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
