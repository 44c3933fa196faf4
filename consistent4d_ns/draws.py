"""Random draws of a training step, as values: a step can be repeated from what was drawn (pure but for `Generator`)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

NORMAL_OFFSETS = 65536
"""Rows of the table that normal offsets are taken from, one after the other, over the samples of a step."""


@dataclass(frozen=True)
class RenderDraws:
    """What is random in rendering a training batch."""

    jitter: Float[Tensor, " rays"]
    """Shift of each ray's sample lattice, in steps, uniform in [0, 1)."""
    normal_offsets: Float[Tensor, "rows 3"]
    """Standard normal directions in which points are shifted to ask for a second normal; sample i uses row i % rows.
    No rows where no loss asks."""


def step_generator(seed: int, step: int, purpose: str, device: torch.device | str) -> torch.Generator:
    """A generator for one purpose within one step: what is drawn follows from (seed, step, purpose) alone.

    Hence a resumed run draws what an uninterrupted one draws, and ranks differ when their seeds do.
    """
    digest = hashlib.blake2b(f"{seed}/{step}/{purpose}".encode(), digest_size=8).digest()
    return torch.Generator(device=device).manual_seed(int.from_bytes(digest, "little") >> 1)


def draw_rendering(rays: int, generator: torch.Generator, offsets: bool = True) -> RenderDraws:
    """Draws for a batch of `rays` rays, on the generator's device; with `offsets` where a loss asks for them."""
    like = {"generator": generator, "device": generator.device}
    return RenderDraws(torch.rand(rays, **like), torch.randn(NORMAL_OFFSETS if offsets else 0, 3, **like))
