"""Loss terms of a rendered training batch, before their weights (method.md section 7)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from consistent4d_ns.data.planning import StepKind, StepPlan
from consistent4d_ns.loss_weights import LossWeights, per_level
from consistent4d_ns.rendering import losses
from consistent4d_ns.rendering.rendered import Rendering


def rendering_terms(rendering: Rendering, batch: dict[str, Any], weights: LossWeights) -> dict[str, Tensor]:
    """Unweighted terms by name, without those of weight 0 that would take time.

    Args:
        rendering: All rays of a batch.
        batch: As of `Consistent4DDataManager.batch`: its `plan`, and of the input view `image` and `alpha`; of target
            views also `judged`, those of `TargetBank.batch`.
        weights: Tell which terms are needed.
    """
    plan: StepPlan = batch["plan"]
    terms: dict[str, Tensor] = {}
    if plan.kind is StepKind.REFERENCE:
        terms |= per_level("rgb", losses.mean_squared_error(rendering.rgb, batch["image"]))
        terms |= per_level("mask", losses.mean_squared_error(rendering.accumulation, batch["alpha"]))
    elif plan.kind is StepKind.TARGETS:
        judged, alpha = batch["judged"], batch["alpha"]
        terms |= per_level("target_rgb", losses.mean_squared_error(rendering.rgb, batch["image"]))
        terms |= per_level("target_mask", losses.mean_squared_error(rendering.accumulation * judged, alpha * judged))
    elif weights.sparsity > 0:
        terms["sparsity"] = losses.sparsity(rendering.accumulation)
    terms |= normal_terms(rendering, plan)
    if weights.opaqueness > 0:
        terms["opaqueness"] = losses.opaqueness(rendering.accumulation)
    if rendering.depth_variance is not None:
        terms["depth_variance"] = losses.visible_depth_variance(rendering.depth_variance, rendering.accumulation)
    return terms


def normal_terms(rendering: Rendering, plan: StepPlan) -> dict[str, Tensor]:
    """Those terms of the normals for which they were computed; random pixels have no neighbours to be smooth with."""
    terms: dict[str, Tensor] = {}
    if rendering.normals is not None:
        terms["orientation"] = losses.orientation(
            rendering.weights, rendering.normals, rendering.directions, rendering.accumulation
        )
    if rendering.normals is not None and rendering.shifted_normals is not None:
        terms["normal_smoothness_3d"] = losses.normal_smoothness_3d(
            rendering.normals, rendering.shifted_normals, rendering.kept
        )
    if rendering.normal_map is not None and plan.random_pixels is None:
        images = rendering.normal_map.view(-1, plan.image_size, plan.image_size, 3)
        terms["normal_smoothness_2d"] = losses.normal_smoothness_2d(images)
    return terms
