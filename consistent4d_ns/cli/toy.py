"""`consistent4d toy`: a synthetic data set for trying out the package."""

from __future__ import annotations

import shlex

from consistent4d_ns.cli.help_texts import OutArgument
from consistent4d_ns.cli.progress import announce, progress


def toy(out: OutArgument, /, size: int = 256, frames: int = 32, overwrite: bool = False) -> None:
    """Make a toy data set: a wind-up cat, filmed by the input camera and six evaluation cameras.

    Args:
        out: The folder to write: input/, eval_0/ to eval_5/ and meta.json.
        size: Width and height of the images in pixels.
        frames: Number of frames.
        overwrite: Replace an existing toy.
    """
    announce("Loading PyTorch")
    from consistent4d_ns.toy.sequence import write_sequence

    write_sequence(out, size, frames, overwrite=overwrite, progress=lambda jobs: progress(jobs, "Rendering", len(jobs)))
    print(f"The toy is in {out}: {frames} frames of {size} x {size} pixels from each of 7 cameras.")
    print(f"Next: ns-train consistent4d-mini --data {shlex.quote(str(out))}")
