"""Fits Gaussians to renders of the field: positions, shapes, opacities and colours, for some steps of Adam."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float
from torch import Tensor

from consistent4d_ns.data.cameras import OrbitViews
from consistent4d_ns.export.splats.gaussians import Gaussians
from consistent4d_ns.media.pictures import render_colour_and_opacity
from consistent4d_ns.model import Consistent4DModel

LEAP = 7
"""Views from one step to the next; has no divisor in common with their number, so that all get their turn."""
OPACITY_WEIGHT = 0.5
"""Weight of the opacity's mean squared error beside that of the colour on white."""
RATES = {"means": 5e-4, "quaternions": 5e-3, "log_scales": 1e-2, "opacity_logits": 5e-2, "colour_logits": 2e-2}
"""Adam's learning rates at the first step; they fall to 0 along a half cosine."""

Draw = Callable[[Gaussians, OrbitViews, int], tuple[Float[Tensor, "size size 3"], Float[Tensor, "size size"]]]
"""Image on white, and its opacity, of one view at a size; differentiable."""


@dataclass(frozen=True)
class Target:
    """What a view should look like."""

    view: OrbitViews
    """One view."""
    rgb: Float[Tensor, "size size 3"]
    """Colour on white in [0, 1]."""
    opacity: Float[Tensor, "size size"]
    """In [0, 1]."""


def target(model: Consistent4DModel, view: OrbitViews, time: float, size: int) -> Target:
    """The volume render of one view at a time in [0, 1], at `size` x `size` pixels."""
    return Target(view.to(model.device), *render_colour_and_opacity(model, view, time, size))


def fitted(gaussians: Gaussians, targets: list[Target], steps: int, draw: Draw) -> Gaussians:
    """Gaussians that look more like the targets, each of which is looked at in turn."""
    values = {f.name: getattr(gaussians, f.name).detach().clone().requires_grad_() for f in fields(gaussians)}
    groups = [{"params": [values[name]], "lr": rate} for name, rate in RATES.items()]
    optimiser = torch.optim.Adam(groups, eps=1e-15)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(steps):
        optimiser.zero_grad()
        loss(replace(gaussians, **values), targets[step * LEAP % len(targets)], draw).backward()
        optimiser.step()
        schedule.step()
    return replace(gaussians, **{name: value.detach() for name, value in values.items()})


def loss(gaussians: Gaussians, target: Target, draw: Draw) -> Float[Tensor, ""]:
    """Mean squared error of the colour on white, and of the opacity."""
    rgb, opacity = draw(gaussians, target.view, len(target.rgb))
    return (rgb - target.rgb).square().mean() + OPACITY_WEIGHT * (opacity - target.opacity).square().mean()


@torch.no_grad()
def quality(gaussians: Gaussians, targets: list[Target], draw: Draw) -> float:
    """PSNR in dB of Gaussians, of the mean squared error of all targets."""
    errors = [(draw(gaussians, t.view, len(t.rgb))[0].clamp(0.0, 1.0) - t.rgb).square().mean() for t in targets]
    return -10.0 * math.log10(max(float(torch.stack(errors).mean()), 1e-12))
