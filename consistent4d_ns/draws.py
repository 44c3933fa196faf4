"""Random draws of a training step as values, from which the step can be repeated."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

NORMAL_OFFSETS = 65536
"""Rows of the table of normal offsets, which the samples of a step use in turn."""


@dataclass(frozen=True)
class RenderDraws:
    """Random numbers for rendering a training batch."""

    jitter: Float[Tensor, " rays"]
    """Shift of each ray's sample positions, in steps, uniform in [0, 1)."""
    normal_offsets: Float[Tensor, "rows 3"]
    """Standard normal offsets to the points where a second normal is evaluated; sample i uses row i % rows. Empty where
    no loss needs them."""


def step_generator(seed: int, step: int, purpose: str, device: torch.device | str) -> torch.Generator:
    """A generator for one purpose within one step; its numbers follow from (seed, step, purpose) alone.

    So a resumed run draws the same numbers as an uninterrupted one, and ranks differ when their seeds do.
    """
    digest = hashlib.blake2b(f"{seed}/{step}/{purpose}".encode(), digest_size=8).digest()
    return torch.Generator(device=device).manual_seed(int.from_bytes(digest, "little") >> 1)


def draw_rendering(rays: int, generator: torch.Generator, offsets: bool = True) -> RenderDraws:
    """Draws for a batch of `rays` rays, on the generator's device; normal offsets only with `offsets`."""
    like = {"generator": generator, "device": generator.device}
    return RenderDraws(torch.rand(rays, **like), torch.randn(NORMAL_OFFSETS if offsets else 0, 3, **like))


def draw_pixels(count: int, pixels: int, generator: torch.Generator) -> Int64[Tensor, " count"]:
    """`count` out of `pixels` pixels, on the generator's device; one may be drawn several times."""
    return torch.randint(pixels, (count,), generator=generator, device=generator.device)
