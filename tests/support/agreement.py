"""Comparison of results with recorded numbers."""

from __future__ import annotations

import torch
from torch import Tensor


def largest_error(result: Tensor, recorded: Tensor, relative: bool = False) -> float:
    """Largest absolute difference; if `relative`, divided by the largest recorded magnitude.

    Raises:
        AssertionError: The shapes differ.
    """
    assert result.shape == recorded.shape, f"shape {tuple(result.shape)}, recorded {tuple(recorded.shape)}"
    if not recorded.numel():
        return 0.0
    difference = (result.detach().double() - recorded.double()).abs().max().item()
    return difference / max(recorded.double().abs().max().item(), 1e-30) if relative else difference


def assert_agrees(quantity: str, result: Tensor, recorded: Tensor, tolerance: float, relative: bool = False) -> None:
    """Assert that a result is within `tolerance` of what was recorded; the message names the quantity and the error."""
    error = largest_error(result, recorded, relative)
    assert error <= tolerance, f"{quantity}: error {error:.3g} exceeds {tolerance:.3g}"


def gradient_summary(gradient: Tensor) -> Tensor:
    """What is recorded of a large gradient: its sum, the sum of its magnitudes, its dot product with a ramp -1..1."""
    flat = gradient.reshape(-1)
    ramp = torch.linspace(-1.0, 1.0, len(flat), dtype=flat.dtype)
    return torch.stack((flat.sum(), flat.abs().sum(), (flat * ramp).sum()))
