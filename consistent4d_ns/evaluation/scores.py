"""PSNR and SSIM of an image: as the original computes them (method.md section 10), and with a fixed data range.

Images are floats from 0 to 255.
"""

from __future__ import annotations

from typing import Any, cast

from jaxtyping import Float
from torch import Tensor

FULL_RANGE = 255.0
"""Difference of white and black."""

Image = Float[Tensor, "1 3 height width"]


def psnr(predicted: Image, truth: Image, data_range: float = FULL_RANGE) -> float:
    """Peak signal-to-noise ratio in dB; infinite where the images are equal."""
    error = (predicted - truth).square().mean()
    return float(10.0 * (data_range**2 / error).log10())


def original_psnr(predicted: Image, truth: Image) -> float:
    """PSNR in dB relative to the range of values in the true image, which torchmetrics took by default until 1.x."""
    return psnr(predicted, truth, value_range(truth))


def ssim(predicted: Image, truth: Image, data_range: float = FULL_RANGE) -> float:
    """Structural similarity with a Gaussian window of sigma 1.5; 1 where the images are equal.

    Mean over the pixels around which the whole window lies inside the image, as torchmetrics had it when the original
    was written; its later versions count the border too. Scikit-image has this definition still, in double precision:
    in single precision, variances of 0..255 values are small differences of large numbers, which makes the fourth
    decimal depend on the device.
    """
    from skimage.metrics import structural_similarity

    one, other = (image[0].double().cpu().numpy() for image in (predicted, truth))
    options: Any = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": 0}
    return float(cast(Any, structural_similarity)(one, other, data_range=data_range, **options))


def original_ssim(predicted: Image, truth: Image) -> float:
    """SSIM relative to the range of values in that of the two images in which it is larger."""
    return ssim(predicted, truth, max(value_range(predicted), value_range(truth)))


def value_range(image: Image) -> float:
    """Difference of the largest and the smallest value."""
    return float(image.max() - image.min())
