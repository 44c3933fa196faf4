"""Rendered scenes on disk and in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from consistent4d_ns.data.cameras import OrbitViews, relative_pose
from consistent4d_ns.errors import InputError
from training.scenes import FOVY

VIEWS = 10
"""Views of a scene."""
HELD_OUT = "held-out.safetensors"
"""Name of the file of views that are not for training."""


@dataclass(frozen=True)
class ViewSet:
    """Rendered scenes."""

    images: UInt8[Tensor, "scenes views 4 size size"]
    """RGB on white, then alpha."""
    cameras: Float[Tensor, "3 scenes views"]
    """Elevation and azimuth in degrees, distance in world units."""

    def __len__(self) -> int:
        return len(self.images)

    def poses(
        self, scenes: Int64[Tensor, " pairs"], inputs: Int64[Tensor, " pairs"], targets: Int64[Tensor, " pairs"]
    ) -> Float[Tensor, "pairs 4"]:
        """Camera vectors from input to target views (see `cameras.relative_pose`)."""
        return relative_pose(self._orbit(scenes, targets), self._orbit(scenes, inputs))

    def _orbit(self, scenes: Int64[Tensor, " pairs"], views: Int64[Tensor, " pairs"]) -> OrbitViews:
        elevation, azimuth, distance = self.cameras[:, scenes, views]
        return OrbitViews(elevation, azimuth, distance, torch.full_like(azimuth, FOVY))


def training_files(folder: Path, rank: int, processes: int) -> list[Path]:
    """The files of training views that one of several processes trains on.

    Raises:
        InputError: There are fewer files than processes.
    """
    files = sorted(folder.glob("train-*.safetensors"))
    if len(files) < processes:
        raise InputError(
            f"{folder}: {len(files)} files of training views for {processes} processes; render more with "
            "`python -m training.views`."
        )
    return files[rank::processes]


def load_views(paths: Sequence[Path], device: torch.device | str) -> ViewSet:
    """The scenes of some files (at least one), one after another; `InputError` if one cannot be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    parts = []
    for path in paths:
        try:
            tensors = load_file(path, device=str(device))
            parts.append((tensors["images"], tensors["cameras"]))
        except (OSError, KeyError, SafetensorError) as error:
            raise InputError(
                f"{path}: not a readable file of views ({error}); render it again with `python -m training.views`."
            ) from error
    images, cameras = zip(*parts, strict=True)
    return ViewSet(torch.cat(images), torch.cat(cameras, dim=1))


def save_views(views: ViewSet, path: Path) -> None:
    """Write a file atomically."""
    from safetensors.torch import save_file

    unfinished = path.with_suffix(".part")
    save_file({"images": views.images, "cameras": views.cameras}, unfinished)
    unfinished.replace(path)
