"""Fréchet distances of features of clips, in which FVD is given."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

Features = Float[np.ndarray, "clips features"]


def frechet_distance(first: Features, second: Features) -> float:
    """Fréchet distance of two sets of features, each taken for a normal distribution with its mean and covariance.

    The trace of the root of the product of two covariances is the nuclear norm of the product of the centred features,
    so that no root of a matrix is taken, which is ill-conditioned where there are fewer clips than features.

    Args:
        first, second: Features of at least two clips each.
    """
    means = [features.mean(axis=0, dtype=np.float64) for features in (first, second)]
    centred = [
        (features - mean) / math.sqrt(len(features) - 1) for features, mean in zip((first, second), means, strict=True)
    ]
    shared = np.linalg.norm(centred[0] @ centred[1].T, ord="nuc")
    spread = sum(float(np.square(part).sum()) for part in centred)
    return max(0.0, float(np.square(means[0] - means[1]).sum()) + spread - 2.0 * float(shared))


def one_clip_distance(predicted: Float[np.ndarray, " features"], truth: Float[np.ndarray, " features"]) -> float:
    """The original's FVD of one clip: squared distance of the features, and of the spreads of their values.

    A covariance needs several clips. The original's script has one, of which numpy before 2.2 took the variance over
    its features in place of a covariance (method.md section 10, quirk 33).
    """
    spreads = [float(np.std(features.astype(np.float64), ddof=1)) for features in (predicted, truth)]
    difference = predicted.astype(np.float64) - truth.astype(np.float64)
    return float(np.square(difference).sum()) + (spreads[0] - spreads[1]) ** 2
