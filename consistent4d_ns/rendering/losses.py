"""Loss terms as pure functions; none of them is ever NaN (method.md section 7)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def mean_squared_error(
    predicted: Float[Tensor, " levels *rest"], target: Float[Tensor, " *rest"]
) -> Float[Tensor, " levels"]:
    """Mean squared difference of each level from one target: the colour and the silhouette term."""
    return (predicted - target).square().flatten(1).mean(dim=1)


def orientation(
    weights: Float[Tensor, "levels samples"],
    normals: Float[Tensor, "levels samples 3"],
    directions: Float[Tensor, "samples 3"],
    accumulation: Float[Tensor, "levels rays"],
) -> Float[Tensor, ""]:
    """Penalty on visible normals that face away from the camera, per ray that meets anything, levels together.

    Weights are detached: the term rotates normals instead of making surfaces transparent.
    """
    facing_away = (normals * directions).sum(dim=-1).clamp(min=0.0)
    rays = (accumulation > 0).sum().clamp(min=1)
    return total(weights.detach() * facing_away.square()) / rays


def normal_smoothness_3d(
    normals: Float[Tensor, "levels samples 3"],
    perturbed: Float[Tensor, "levels samples 3"],
    kept: Float[Tensor, " samples"] | None = None,
) -> Float[Tensor, ""]:
    """Mean absolute difference between normals and those at slightly shifted points; 0 without samples.

    `kept` is 1 for the samples that count, 0 for others; None: all count.
    """
    differences = (normals - perturbed).abs()
    if kept is None:
        # By a tensor, as below: CUDA multiplies by the reciprocal of a number, which may differ in the last bit.
        return total(differences) / differences.new_full((), max(1, normals.numel()))
    return total(differences * kept[:, None]) / (kept.sum() * len(normals) * 3).clamp(min=1)


def total(values: Float[Tensor, "*samples"]) -> Float[Tensor, ""]:
    """Sum over samples; where torch is asked for deterministic algorithms, the same whatever padding there is.

    The order in which torch adds depends on the number of values. In float64 that changes the sum by so little that
    nothing of it is left in float32.
    """
    if torch.are_deterministic_algorithms_enabled():
        return values.sum(dtype=torch.float64).to(values.dtype)
    return values.sum()


def normal_smoothness_2d(images: Float[Tensor, "images height width 3"]) -> Float[Tensor, ""]:
    """Mean squared difference between neighbouring pixels of normal images, both directions added."""
    down = (images[:, 1:] - images[:, :-1]).square().mean()
    across = (images[:, :, 1:] - images[:, :, :-1]).square().mean()
    return down + across


def sparsity(accumulation: Float[Tensor, "levels rays"]) -> Float[Tensor, ""]:
    """Mean of sqrt(accumulation^2 + 0.01): penalises occupied space."""
    return torch.sqrt(accumulation.square() + 0.01).mean()


def opaqueness(accumulation: Float[Tensor, "levels rays"]) -> Float[Tensor, ""]:
    """Mean entropy of the accumulation clamped to [1e-3, 1 - 1e-3]: rays should be opaque or empty."""
    opacity = accumulation.clamp(1e-3, 1.0 - 1e-3)
    return -(opacity * opacity.log() + (1.0 - opacity) * (1.0 - opacity).log()).mean()


def visible_depth_variance(
    variance: Float[Tensor, "levels rays"], accumulation: Float[Tensor, "levels rays"]
) -> Float[Tensor, ""]:
    """Mean depth variance of rays more than half opaque; 0 where there are none (upstream: NaN, quirk 19)."""
    visible = accumulation > 0.5
    return (variance * visible).sum() / visible.sum().clamp(min=1)


def peak_signal_noise_ratio(predicted: Float[Tensor, "*image"], target: Float[Tensor, "*image"]) -> Float[Tensor, ""]:
    """PSNR in dB of images in [0, 1]."""
    return -10.0 * torch.log10(F.mse_loss(predicted, target))
