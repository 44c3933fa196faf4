"""Image metrics between rendered images and ground truth: pure functions of stacks of images.

Images are on white, in [0, 1], channels first. Metrics are per image, so that callers can average over any group of
views and times. As everywhere in this project, a mean PSNR is the mean of the dB values of the images.
"""

from __future__ import annotations

from typing import cast

from jaxtyping import Bool, Float
from torch import Tensor

from consistent4d_ns.targets.silhouettes import dilated


def psnr(images: Float[Tensor, "images 3 h w"], truth: Float[Tensor, "images 3 h w"]) -> Float[Tensor, " images"]:
    """Peak signal-to-noise ratio in dB for a data range of 1; infinite where the images are equal."""
    return decibels((images - truth).square().flatten(1).mean(dim=1))


def foreground_psnr(
    images: Float[Tensor, "images 3 h w"],
    truth: Float[Tensor, "images 3 h w"],
    foreground: Bool[Tensor, "images h w"],
) -> Float[Tensor, " images"]:
    """PSNR in dB over the pixels of `foreground`, independent of the size of the background; NaN if there are none."""
    error = (images - truth).square().mean(dim=1)
    return decibels((error * foreground).flatten(1).sum(dim=1) / foreground.flatten(1).sum(dim=1))


def decibels(squared_error: Float[Tensor, "*images"]) -> Float[Tensor, "*images"]:
    """PSNR in dB of mean squared errors, for a data range of 1."""
    return -10.0 * squared_error.log10()


def ssim(images: Float[Tensor, "images 3 h w"], truth: Float[Tensor, "images 3 h w"]) -> Float[Tensor, " images"]:
    """Structural similarity with a Gaussian window of sigma 1.5 for a data range of 1; 1 where the images are equal."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    values = structural_similarity_index_measure(images, truth, data_range=1.0, reduction="none")
    return cast(Tensor, values)


def silhouettes(alpha: Float[Tensor, "images h w"]) -> Bool[Tensor, "images h w"]:
    """Pixels that are more than half opaque."""
    return alpha > 0.5


def overlap(first: Bool[Tensor, "images h w"], second: Bool[Tensor, "images h w"]) -> Float[Tensor, " images"]:
    """Intersection over union of silhouettes; 0 where both are empty."""
    common = (first & second).flatten(1).sum(dim=1)
    return common / (first | second).flatten(1).sum(dim=1).clamp(min=1)


def opacity_outside(
    alpha: Float[Tensor, "images h w"], silhouette: Bool[Tensor, "images h w"], margin: int
) -> Float[Tensor, " images"]:
    """Mean opacity outside a silhouette that is dilated by `margin` pixels, corners included; 0 if nothing is outside.

    Of the ground truth's silhouette, it is the haze and the floaters of a rendering.
    """
    outside = 1.0 - dilated(silhouette.float(), margin)
    return (alpha * outside).flatten(1).sum(dim=1) / outside.flatten(1).sum(dim=1).clamp(min=1)


def temporal_change(clip: Float[Tensor, "*views frames 3 h w"]) -> Float[Tensor, "*views"]:
    """Mean squared difference of consecutive frames.

    The value of a rendered clip divided by that of its ground truth is its temporal flicker: above 1 the clip changes
    more than the ground truth, below 1 less.
    """
    return clip.diff(dim=-4).square().flatten(-4).mean(dim=-1)
