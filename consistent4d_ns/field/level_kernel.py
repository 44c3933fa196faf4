"""The query of a K-planes level on the CPU, in C: all planes and both heads at once, and their gradients.

The same as `planes.plane_features` followed by `heads.head_values`. Every point is looked up again in the backward
pass, so that only coordinates are stored for it.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from consistent4d_ns.device import c_kernels
from consistent4d_ns.field.types import TIME_AXIS, HeadValues, HeadWeights, PlaneReduction, Planes, resolution_of

SOURCE = Path(__file__).with_name("level.c")
ANY_ORDER = ("-fassociative-math", "-fno-signed-zeros")
"""Sums may be formed in any order."""
COLOURS = 3
LANES = 8
"""Numbers that the kernel processes together."""


class Job(ctypes.Structure):
    """The arguments of the functions in `level.c`, where they are described."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("table", "coordinates", "resolution")),
        *((name, ctypes.c_void_p) for name in ("density_hidden", "density_output", "colour_hidden", "colour_output")),
        *((name, ctypes.c_void_p) for name in ("density", "colour", "gradients")),
        ("size", ctypes.c_int64),
    ]


def level_values(
    planes: Planes,
    density_head: HeadWeights,
    colour_head: HeadWeights | None,
    coordinates: Float[Tensor, "points 4"],
    reduction: PlaneReduction,
) -> HeadValues:
    """The heads' outputs at (x, y, z, t) in [-1, 1]; no gradient for the coordinates, nor of the gradients."""
    table = torch.cat([plane[0].permute(1, 2, 0).flatten(0, 1) for plane in planes])
    weights = (table, *density_head, *(colour_head or (None, None)))
    kind = resolution_of(planes), reduction == "hybrid"
    density, colour = _Level.apply(coordinates.contiguous(), *kind, *weights)  # type: ignore
    return HeadValues(density, colour, None)


def accepts(planes: Planes, hidden: Float[Tensor, "hidden channels"], coordinates: Tensor) -> bool:
    """Whether the kernel can be used: float32 on the CPU, a compiler, widths that are multiples of `LANES`.

    Args:
        planes: The level's planes.
        hidden: Weights of the hidden layer of a head.
        coordinates: Where it would be used; they must need no gradient.
    """
    fits = all(width % LANES == 0 for width in hidden.shape) and not coordinates.requires_grad
    return fits and c_kernels.usable(coordinates, hidden, *planes)


class _Level(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, coordinates: Tensor, resolution: tuple[int, ...], hybrid: bool, *weights: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        weights = tuple(w if w is None else w.contiguous() for w in weights)
        ctx.save_for_backward(coordinates, *weights)
        ctx.resolution, ctx.hybrid = resolution, hybrid
        density = coordinates.new_empty(len(coordinates))
        colour = None if weights[3] is None else coordinates.new_empty(len(coordinates), COLOURS)
        _run("forward", coordinates, resolution, hybrid, weights, (density, colour), None)
        return density, colour

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_density: Tensor, to_colour: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        coordinates, *weights = ctx.saved_tensors
        table, density_hidden, density_output, colour_hidden, _ = weights
        hidden, width = density_hidden.shape
        sizes = (hidden * width, hidden, hidden * width, COLOURS * hidden, table.numel())
        threads = c_kernels.threads_for(len(coordinates))
        gradients = table.new_zeros(threads, sum(sizes))
        upstream = to_density.contiguous(), None if colour_hidden is None else to_colour.contiguous()  # type: ignore
        _run("backward", coordinates, ctx.resolution, ctx.hybrid, weights, upstream, gradients)
        *heads, of_table = gradients.sum(dim=0).split(sizes)
        shapes = (density_hidden, density_output, colour_hidden, weights[4])
        of_heads = (None if like is None else grad.view_as(like) for grad, like in zip(heads, shapes, strict=True))
        return None, None, None, of_table.view_as(table), *of_heads


def _run(
    name: str,
    coordinates: Tensor,
    resolution: tuple[int, ...],
    hybrid: bool,
    weights: Any,
    results: tuple[Tensor, Tensor | None],
    gradients: Float[Tensor, "threads size"] | None,
) -> None:
    """Call a function of the library that is compiled for these widths."""
    hidden, channels = weights[1].shape
    threads = c_kernels.threads_for(len(coordinates)) if gradients is None else len(gradients)
    size = 0 if gradients is None else gradients.shape[1]
    timed = int(resolution[TIME_AXIS] > 0)
    macros = f"CHANNELS={channels}", f"HIDDEN={hidden}", f"HYBRID={int(hybrid)}", f"TIMED={timed}"
    function = getattr(c_kernels.load(SOURCE, *macros, flags=ANY_ORDER), name)
    sizes = (ctypes.c_int64 * 4)(*resolution)
    table, *rest = map(c_kernels.pointer, (*weights, *results, gradients))
    job = Job(table, c_kernels.pointer(coordinates), ctypes.addressof(sizes), *rest, size)
    function(ctypes.byref(job), ctypes.c_int64(len(coordinates)), ctypes.c_int(threads))
