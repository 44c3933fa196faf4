"""Random numbers for many objects at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class Draw:
    """Draws for a number of objects; every result starts with that dimension, then `shape`."""

    count: int
    """Number of objects."""
    generator: torch.Generator
    """Source of the numbers, which are on its device."""

    @property
    def device(self) -> torch.device:
        """Device of the numbers."""
        return self.generator.device

    def uniform(self, low: float, high: float, *shape: int) -> Float[Tensor, "objects ..."]:
        """Uniform in [low, high)."""
        return low + (high - low) * torch.rand(self.count, *shape, generator=self.generator, device=self.device)

    def skewed(self, low: float, high: float, *shape: int) -> Float[Tensor, "objects ..."]:
        """In [low, high), small values more often than large ones."""
        return low + (high - low) * self.uniform(0, 1, *shape).square()

    def normal(self, scale: float, *shape: int) -> Float[Tensor, "objects ..."]:
        """Normal around 0 with standard deviation `scale`, clamped to 2.5 standard deviations."""
        noise = torch.randn(self.count, *shape, generator=self.generator, device=self.device)
        return scale * noise.clamp(-2.5, 2.5)

    def chance(self, share: float | Float[Tensor, " objects"], *shape: int) -> Bool[Tensor, "objects ..."]:
        """True with probability `share`."""
        return self.uniform(0, 1, *shape) < share

    def integers(self, end: int, *shape: int) -> Int64[Tensor, "objects ..."]:
        """Uniform in {0, ..., end - 1}."""
        return torch.randint(end, (self.count, *shape), generator=self.generator, device=self.device)

    def pick(self, options: Sequence[float], *shape: int) -> Float[Tensor, "objects ..."]:
        """One of the options, all equally likely."""
        return torch.tensor(options, device=self.device)[self.integers(len(options), *shape)]

    def index(self, weights: Sequence[float], *shape: int) -> Int64[Tensor, "objects ..."]:
        """Indices of the weights, with probabilities proportional to them."""
        steps = torch.tensor(weights, device=self.device).cumsum(0)
        return torch.searchsorted(steps, self.uniform(0, 1, *shape) * steps[-1]).clamp_max(len(weights) - 1)
