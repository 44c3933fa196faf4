"""Interpolation-driven consistency loss: a clip's inner images should match RIFE's interpolations between its ends."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from consistent4d_ns.device.cuda_graphs import Graphed
from consistent4d_ns.errors import InputError
from consistent4d_ns.interpolation.config import InterpolationConfig
from consistent4d_ns.interpolation.ifnet import IFNet, side_multiple
from consistent4d_ns.interpolation.weights import find_weight_file, load_ifnet

SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Supported scales: powers of two, at which every block works on whole pixels."""
PRECISIONS = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Autocast type of each named precision; None: the network's own type."""


@dataclass(frozen=True)
class Interpolator:
    """A frozen IFNet and its settings. Not a module, so that the network stays out of checkpoints."""

    net: IFNet
    scale: float = 1.0
    """As in `InterpolationConfig`."""
    half: torch.dtype | None = None
    """Autocast type of the convolutions; None: the network's own type."""
    grad_through_rife: bool = False
    """As in `InterpolationConfig`."""
    cuda_graphs: bool = False
    """Whether calls without gradients are recorded as CUDA graphs and replayed; the network must be on CUDA."""

    def __call__(
        self,
        first: Float[Tensor, "batch 3 height width"],
        last: Float[Tensor, "batch 3 height width"],
        times: Float[Tensor, " batch"],
    ) -> Float[Tensor, "batch 3 height width"]:
        """Images at `times` (0: first, 1: last) between RGB images in 0..1 of any size; the result is not clamped."""
        function = self._interpolate if torch.is_grad_enabled() else self._graphed
        (image,) = function(first, last, times)
        return image

    @cached_property
    def _graphed(self) -> Graphed:
        return Graphed(self._interpolate, enabled=self.cuda_graphs)

    def _interpolate(
        self,
        first: Float[Tensor, "batch 3 height width"],
        last: Float[Tensor, "batch 3 height width"],
        times: Float[Tensor, " batch"],
    ) -> tuple[Float[Tensor, "batch 3 height width"]]:
        dtype = next(self.net.parameters()).dtype
        height, width = first.shape[-2:]
        inputs = (pad_sides(image.to(dtype), side_multiple(self.scale)) for image in (first, last))
        # Also disables an autocast of the caller: the precision of the network is a setting of its own.
        with torch.autocast(first.device.type, dtype=self.half, enabled=self.half is not None):
            merged = self.net(*inputs, times, self.scale).merged
        return (merged[..., :height, :width].to(first.dtype),)


def load_interpolator(config: InterpolationConfig, device: torch.device | str) -> Interpolator | None:
    """The configured interpolator, or None where there is none.

    Raises:
        InputError: The weights are missing or do not fit, or a setting is out of range.
    """
    if config.kind == "none":
        return None
    if config.scale not in SCALES:
        raise InputError(
            f"--pipeline.interpolation.scale {config.scale}: must be one of {', '.join(map(str, SCALES))}."
        )
    net = load_ifnet(find_weight_file(config.weights)).to(device).eval().requires_grad_(False)
    precision = config.precision
    on_cuda = torch.device(device).type == "cuda"
    if precision == "auto":
        precision = "fp16" if on_cuda else "fp32"
    graphs = config.cuda_graphs and on_cuda
    return Interpolator(net, config.scale, PRECISIONS[precision], config.grad_through_rife, graphs)


def consistency_loss(
    interpolator: Interpolator, images: Float[Tensor, "levels views 3 height width"]
) -> Float[Tensor, " levels"]:
    """Per level, the mean squared difference between inner image k and the interpolation at k/(views-1).

    Method.md section 6. The first and last image are the interpolator's inputs; all levels and times share one call of
    the network.

    Args:
        interpolator: From `load_interpolator`.
        images: RGB in 0..1 of consecutive views or times, of any size.

    Raises:
        ValueError: There are fewer than 3 views, so nothing lies between the ends.
    """
    levels, views = images.shape[:2]
    if views < 3:
        raise ValueError(f"consistency_loss: needs at least 3 views, got {views}.")
    inner = images[:, 1:-1]
    first, last = (images[:, end, None].expand_as(inner).flatten(0, 1) for end in (0, -1))
    times = torch.arange(1, views - 1, device=images.device, dtype=images.dtype) / (views - 1)
    with nullcontext() if interpolator.grad_through_rife else torch.no_grad():
        targets = interpolator(first, last, times.repeat(levels)).view_as(inner)
    return (targets - inner).square().flatten(1).mean(1)


def pad_sides(image: Float[Tensor, "batch 3 height width"], multiple: int) -> Float[Tensor, "batch 3 h w"]:
    """Repeat the right and bottom border until both sides are multiples of `multiple`.

    Repeating continues the white background; zeros would add a black edge, which the flow would follow.
    """
    height, width = image.shape[-2:]
    padding = (0, -width % multiple, 0, -height % multiple)
    return F.pad(image, padding, mode="replicate") if any(padding) else image
