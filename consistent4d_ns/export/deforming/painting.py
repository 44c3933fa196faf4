"""One set of colours for all moments: the robust mean of what is seen of the mesh at each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from consistent4d_ns.export.surface import Surface
from consistent4d_ns.export.texture import ColourFunction, Texels, evaluate

MOST_MOMENTS = 32
"""Moments that are looked at, evenly spread; more hardly change a mean, and all have to be held in memory."""
RENDERED_MOMENTS = 16
"""Moments of which volume renders correct the colours."""
USUAL = 0.08
"""Distance of a colour from the usual one, in [0, 1], at which it counts a quarter."""
ROUNDS = 3
"""Rounds in which the mean is found."""
CHUNK = 1 << 15
"""Points whose mean is found at a time."""


def robust_mean(seen: UInt8[Tensor, "moments points 3"]) -> Float[Tensor, "points 3"]:
    """Mean colours in [0, 1] without outliers, such as a limb that is in front at some moments.

    It starts from the median and weighs each colour by how close it is to the mean so far.
    """
    return torch.cat([_mean_of_some(part.float() / 255.0) for part in seen.split(CHUNK, dim=1)])


def _mean_of_some(seen: Float[Tensor, "moments points 3"]) -> Float[Tensor, "points 3"]:
    mean = seen.quantile(0.5, dim=0)
    for _ in range(ROUNDS):
        apart = (seen - mean).square().sum(dim=-1, keepdim=True)
        weight = (USUAL**2 / (USUAL**2 + apart)).square()
        mean = (weight * seen).sum(dim=0) / weight.sum(dim=0)
    return mean


Looks = Iterable[tuple[Surface, ColourFunction]]
"""The mesh at each moment, and the colours of its surroundings then."""


def vertex_colours(looks: Looks, device: torch.device | str) -> Float[Tensor, "vertices 3"]:
    """Colours in [0, 1] of the vertices."""

    def look(surface: Surface, colours_at: ColourFunction) -> Float[Tensor, "vertices 3"]:
        return evaluate(colours_at, surface.vertices, surface.normals, device)

    return robust_mean(_stack(looks, look))


def texel_colours(looks: Looks, texels: Texels) -> Float[Tensor, "texels 3"]:
    """Colours in [0, 1] of the texture's texels."""
    return robust_mean(_stack(looks, texels.seen))


def _stack(
    looks: Looks, look: Callable[[Surface, ColourFunction], Float[Tensor, "points 3"]]
) -> UInt8[Tensor, "moments points 3"]:
    """What is seen at all moments, in 8 bits."""

    def seen() -> Iterator[UInt8[Tensor, "points 3"]]:
        for surface, colours_at in looks:
            yield (look(surface, colours_at) * 255.0).round().byte()

    return torch.stack(list(seen()))
