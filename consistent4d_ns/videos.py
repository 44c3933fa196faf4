"""Pictures of a trained object: rendered views, videos, contact sheets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from consistent4d_ns.cameras import OrbitViews
from consistent4d_ns.datamanager import view_rays
from consistent4d_ns.model import Consistent4DModel


@torch.no_grad()
def render_image(
    model: Consistent4DModel, view: OrbitViews, time: float, image_size: int
) -> dict[str, Float[Tensor, "height width channels"]]:
    """All outputs of the model for one view (an `OrbitViews` of length 1) at one time in [0, 1]."""
    rays = view_rays(view.to(model.device), torch.tensor([time], device=model.device), image_size)
    return model.get_outputs_for_camera_ray_bundle(rays.reshape((image_size, image_size)))


def to_bytes(image: Float[Tensor, "height width 3"]) -> UInt8[np.ndarray, "height width 3"]:
    """Values in [0, 1] as rounded 8-bit values."""
    return (image.clamp(0.0, 1.0) * 255.0).round().byte().cpu().numpy()


def render_clip(
    model: Consistent4DModel, views: OrbitViews, times: Sequence[float], image_size: int, output: str = "rgb"
) -> list[UInt8[np.ndarray, "height width 3"]]:
    """One output for each pair of view and time."""
    single = (OrbitViews(*(t[i : i + 1] for t in vars(views).values())) for i in range(len(views)))
    return [to_bytes(render_image(model, view, time, image_size)[output]) for view, time in zip(single, times)]


def write_video(path: Path, images: Iterable[UInt8[np.ndarray, "height width 3"]], fps: float) -> None:
    """An H.264 mp4 that ordinary players show; even sides required."""
    import imageio.v2 as imageio

    with imageio.get_writer(path, fps=fps, codec="libx264", pixelformat="yuv420p", macro_block_size=2) as writer:
        for image in images:
            writer.append_data(image)  # pyright: ignore[reportAttributeAccessIssue]


def contact_sheet(
    rows: Sequence[Sequence[UInt8[np.ndarray, "height width 3"]]], gap: int = 4
) -> UInt8[np.ndarray, "height width 3"]:
    """Images of equal size in rows, on white with a small gap."""
    padded = [
        np.concatenate([np.pad(image, ((gap, gap), (gap, gap), (0, 0)), constant_values=255) for image in row], axis=1)
        for row in rows
    ]
    return np.concatenate(padded, axis=0)
