"""Gradients of a distillation loss for the images, computed together with the loss."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def pull_back(
    gradient: Float[Tensor, "levels views c h w"],
    latents: Float[Tensor, "levels views c h w"],
    images: Float[Tensor, "levels views 3 height width"],
) -> Float[Tensor, "levels views 3 height width"]:
    """The latents' gradient propagated back to the images they were encoded from.

    Each image is scaled by a factor of its own, the power of two above its largest entry: images do not influence each
    other, and multiplying by powers of two is exact.
    """
    _, exponent = torch.frexp(gradient.abs().amax(dim=(2, 3, 4), keepdim=True))
    exponent = exponent.clamp(-100, 100)  # the powers themselves must be finite
    (scaled,) = torch.autograd.grad(latents, images, torch.ldexp(gradient, -exponent))
    return torch.ldexp(scaled, exponent)


class LossWithGradient(torch.autograd.Function):
    """Losses whose gradient for the images has been computed already."""

    @staticmethod
    def forward(
        ctx: Any,
        images: Float[Tensor, "levels views 3 height width"],
        losses: Float[Tensor, " levels"],
        gradient: Float[Tensor, "levels views 3 height width"],
    ) -> Float[Tensor, " levels"]:
        ctx.save_for_backward(gradient)
        return losses.clone()

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, upstream: Float[Tensor, " levels"]
    ) -> tuple[Float[Tensor, "levels views 3 height width"], None, None]:
        (gradient,) = ctx.saved_tensors
        return upstream[:, None, None, None, None].to(gradient) * gradient, None, None
