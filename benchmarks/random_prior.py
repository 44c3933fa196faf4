"""Writes a full-size prior with random weights, so that whole runs can be timed without a download.

    python -m benchmarks.random_prior random-zero123
    ns-train consistent4d --data DATA --pipeline.guidance.prior random-zero123 --vis tensorboard

    python -m benchmarks.random_prior random-sd --layout stable-diffusion
    ns-train consistent4d-text --prompt "a wind-up cat" --pipeline.guidance.prior random-sd --vis tensorboard

Such a run takes as much time and memory as one with Zero123-XL or Stable Diffusion 1.5, but learns nothing. The folder
has 2.5 GB (Zero123) or 2.1 GB.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from consistent4d_ns.errors import show_input_errors_in_one_line
from consistent4d_ns.guidance.random_prior import random_networks
from consistent4d_ns.guidance.random_text_prior import write_random_text_prior
from consistent4d_ns.guidance.saving import save_folder


@dataclass
class Options:
    """Options of the script."""

    folder: Annotated[Path, tyro.conf.Positional]
    """A new or empty folder."""
    layout: Literal["zero123", "stable-diffusion"] = "zero123"
    """Which kind of prior."""


def main(options: Options) -> None:
    """Write the prior."""
    show_input_errors_in_one_line()
    if options.layout == "zero123":
        save_folder(random_networks("full", "cpu", 0), options.folder)
    else:
        write_random_text_prior(options.folder, "full", 0)
    print(f"{options.folder}: {sum(file.stat().st_size for file in options.folder.rglob('*')) / 1e9:.1f} GB")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
