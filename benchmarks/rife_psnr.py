"""How well RIFE predicts the middle frame of real clips, compared with averaging the outer two.

    python -m benchmarks.rife_psnr SEQUENCES_DIR

SEQUENCES_DIR holds one folder of RGBA frames 0.png, 1.png, ... per sequence named in `TRIPLES`. Frames are resized
and composited on white as for training (method.md section 2: area average of straight RGBA); the PSNR is that of the
unclamped result against the true middle frame, for a data range of 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from consistent4d_ns.interpolation.config import InterpolationConfig
from consistent4d_ns.interpolation.consistency import Interpolator, load_interpolator

TRIPLES = (
    ("blooming_rose", 0, 8),
    ("blooming_rose", 16, 24),
    ("roaring_t-rex", 0, 4),
    ("pecking_blue_jay", 0, 8),
)
"""Sequence, first and last frame; the middle frame is the ground truth."""


@dataclass
class Options:
    """Options of the benchmark."""

    sequences: Annotated[Path, tyro.conf.Positional]
    """Folder of the sequences."""
    weights: Path | None = None
    """RIFE's weights; by default those in the user's cache."""


def read_on_white(path: Path, side: int) -> Float[Tensor, "1 3 side side"]:
    """The RGBA image, area-averaged to `side` x `side`, on white."""
    rgba = torch.from_numpy(np.asarray(Image.open(path).convert("RGBA"), dtype=np.float32) / 255)
    rgba = F.interpolate(rgba.permute(2, 0, 1)[None], size=(side, side), mode="area")
    rgb, alpha = rgba[:, :3], rgba[:, 3:]
    return rgb * alpha + (1 - alpha)


def psnr(image: Float[Tensor, "1 3 h w"], truth: Float[Tensor, "1 3 h w"]) -> float:
    """Peak signal-to-noise ratio in dB for a data range of 1."""
    return -10 * (image - truth).square().mean().log10().item()


def compare(interpolator: Interpolator, folder: Path, first: int, last: int, side: int) -> tuple[float, float]:
    """PSNR of the frame average and of RIFE for the frame midway between `first` and `last`."""
    middle = (first + last) // 2
    a, truth, b = (read_on_white(folder / f"{i}.png", side) for i in (first, middle, last))
    with torch.no_grad():
        interpolated = interpolator(a, b, torch.tensor([0.5]))
    return psnr((a + b) / 2, truth), psnr(interpolated, truth)


def main(options: Options) -> None:
    """Measure and print."""
    config = InterpolationConfig(weights=options.weights, precision="fp32")
    rows = [(*triple, 256, 1.0) for triple in TRIPLES]
    rows += [(*TRIPLES[0], 64, scale) for scale in (1.0, 2.0)]
    print(f"{'sequence':<17} {'frames':<12} {'side':>4} {'scale':>5} {'average':>8} {'RIFE':>6}  (PSNR, dB)")
    for name, first, last, side, scale in rows:
        interpolator = load_interpolator(replace(config, scale=scale), "cpu")
        assert interpolator is not None
        average, rife = compare(interpolator, options.sequences / name, first, last, side)
        frames = f"{first},{last}->{(first + last) // 2}"
        print(f"{name:<17} {frames:<12} {side:>4} {scale:>5} {average:>8.2f} {rife:>6.2f}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
