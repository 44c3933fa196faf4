"""Compositing of packed samples on the CPU, in C: `compositing.composite` with its gradient."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

from consistent4d_ns.device import c_kernels

SOURCE = Path(__file__).with_name("compositing.c")


class Job(ctypes.Structure):
    """The arguments of the functions in `compositing.c`, where they are described."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("density", "absorbed", "colours", "starts", "offsets")),
        *((name, ctypes.c_void_p) for name in ("weights", "accumulation", "colour", "depth", "final")),
        *((name, ctypes.c_void_p) for name in ("to_weights", "to_accumulation", "to_colour", "to_depth")),
        *((name, ctypes.c_void_p) for name in ("grad_density", "grad_features")),
        *((name, ctypes.c_int64) for name in ("levels", "rays", "samples")),
        ("step", ctypes.c_float),
    ]


def composite(
    density: Float[Tensor, "levels samples"],
    features: Float[Tensor, "levels samples 3"],
    starts: Float[Tensor, " samples"],
    offsets: Int64[Tensor, " rays+1"],
    step: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights, accumulation, colour and expected depth (see `compositing.Composite`).

    Args:
        density: Densities of the samples.
        features: Raw colour features; their sigmoid is the colour.
        starts: Distances at which the samples' segments begin.
        offsets: Where each ray's samples begin, and the number of samples.
        step: Length of every segment.
    """
    return _Composite.apply(density, features, starts, offsets, step)  # pyright: ignore[reportReturnType]


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, density: Tensor, features: Tensor, starts: Tensor, offsets: Tensor, step: float
    ) -> tuple[Tensor, ...]:
        levels, rays = len(density), len(offsets) - 1
        given = density.contiguous(), -torch.expm1(density * -step), torch.sigmoid(features).contiguous()
        given = *given, starts.contiguous(), offsets
        accumulation, depth, final = density.new_empty(3, levels, rays).unbind()
        results = torch.zeros_like(given[0]), accumulation, density.new_empty(levels, rays, 3), depth
        _run("forward", *given, *results, final, *(None,) * 6, step=step)
        ctx.save_for_backward(*given, *results, final)
        ctx.step = step
        ctx.set_materialize_grads(False)
        return results

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        density, _, colours, *_ = inputs
        results = torch.zeros_like(density), torch.zeros_like(colours)
        upstream = [None if gradient is None else gradient.contiguous() for gradient in gradients]
        _run("backward", *inputs, *upstream, *results, step=ctx.step)
        return *results, None, None, None


def _run(name: str, *tensors: Tensor | None, step: float) -> None:
    """Call a function of the library; `tensors` are those of `Job`, in its order."""
    density, offsets = tensors[0], tensors[4]
    assert density is not None
    assert offsets is not None
    (levels, samples), rays = density.shape, len(offsets) - 1
    job = Job(*map(c_kernels.pointer, tensors), levels, rays, samples, step)
    getattr(c_kernels.load(SOURCE), name)(ctypes.byref(job), ctypes.c_int(c_kernels.threads_for(samples)))
