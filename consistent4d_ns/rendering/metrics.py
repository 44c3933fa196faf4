"""Metrics and evaluation images that compare the input view with the ground truth."""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from consistent4d_ns.rendering.losses import peak_signal_noise_ratio


def image_metrics(
    predicted: Float[Tensor, "height width 3"], truth: Float[Tensor, "height width 3"]
) -> dict[str, float]:
    """PSNR in dB and SSIM of an image in [0, 1]."""
    # Imported here: torchmetrics takes seconds, and training needs none of it until an image is evaluated.
    from torchmetrics.functional.image import structural_similarity_index_measure

    ssim = structural_similarity_index_measure(
        predicted.movedim(-1, 0)[None], truth.movedim(-1, 0)[None], data_range=1.0
    )
    return {"psnr": float(peak_signal_noise_ratio(predicted, truth)), "ssim": float(cast(Tensor, ssim))}


def silhouette_iou(accumulation: Float[Tensor, "height width 1"], alpha: Float[Tensor, "height width 1"]) -> float:
    """Intersection over union of two silhouettes, each where opacity exceeds one half; 0 where both are empty."""
    predicted, true = accumulation > 0.5, alpha > 0.5
    return float((true & predicted).sum() / (true | predicted).sum().clamp(min=1))


def evaluation_images(
    outputs: dict[str, Tensor], truth: Float[Tensor, "height width 3"]
) -> dict[str, Float[Tensor, "height _ 3"]]:
    """Images for the log: ground truth beside the rendered colour, depth, accumulation, and normals if rendered."""
    from nerfstudio.utils import colormaps

    images = {
        "img": torch.cat((truth, outputs["rgb"].clamp(0.0, 1.0)), dim=1),
        "depth": colormaps.apply_depth_colormap(outputs["depth"], outputs["accumulation"]),
        "accumulation": colormaps.apply_colormap(outputs["accumulation"]),
    }
    return images | {name: outputs[name] for name in ("normals",) if name in outputs}
