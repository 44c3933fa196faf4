"""Updates of an optimiser that are left out where a gradient is not finite, without waiting for the device."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils import get_total_norm


class FiniteUpdates:
    """Leaves an optimiser's parameters and state as they are in a step with a NaN or an infinite value in a gradient.

    A fused optimiser reads `found_inf` on its own device, as `torch.amp.GradScaler` uses it, and what it does with
    finite gradients is the same to the last bit. For others the host looks, and takes the gradients away.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        """Take effect from the optimiser's next step on."""
        self.found: Float[Tensor, ""] | None = None
        """1 if the latest step was left out, else 0, on the device; None before the first step."""
        self._scaler_found: Tensor | None = None
        optimizer.register_step_pre_hook(self._before)
        optimizer.register_step_post_hook(self._after)

    def _before(self, optimizer: Any, *_: Any) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        self._scaler_found = getattr(optimizer, "found_inf", None)
        found = not_finite_of([p.grad for p in parameters])
        self.found = found if self._scaler_found is None else torch.maximum(found, self._scaler_found)
        if all(group.get("fused") for group in optimizer.param_groups):
            optimizer.found_inf = self.found
        elif bool(self.found):
            for parameter in parameters:
                parameter.grad = None

    def _after(self, optimizer: Any, *_: Any) -> None:
        if self._scaler_found is not None:
            optimizer.found_inf = self._scaler_found  # The scaler that has set it removes it.
        elif hasattr(optimizer, "found_inf"):
            del optimizer.found_inf


def not_finite_of(tensors: list[Tensor]) -> Float[Tensor, ""]:
    """1 if any of some tensors of one device holds a NaN or an infinite value, else 0; on their device."""
    return 1.0 - torch.isfinite(get_total_norm(tensors, float("inf"))).float()
