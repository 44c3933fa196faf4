"""Ray marching through an occupancy grid on the CPU, in C: `sampling.lattice_samples` for a grid."""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from consistent4d_ns.device import c_kernels

SOURCE = Path(__file__).with_name("sampling.c")
SAME_ROUNDING = ("-ffp-contract=off",)
"""Products and sums are rounded one by one, as in torch."""


class Job(ctypes.Structure):
    """The arguments of the function in `sampling.c`, where they are described."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("origins", "directions", "jitter", "nears", "fars", "box", "occupied")),
        *((name, ctypes.c_void_p) for name in ("offsets", "ray_indices", "starts", "points")),
        ("resolution", ctypes.c_int64),
        ("step", ctypes.c_float),
    ]


def grid_samples(
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    step: float,
    jitter: Float[Tensor, " rays"] | None,
    occupied: Bool[Tensor, " cells"],
    resolution: int,
    nears: Float[Tensor, " rays"] | None,
    fars: Float[Tensor, " rays"] | None,
    occupied_box: tuple[Float[Tensor, "3"], Float[Tensor, "3"]],
) -> tuple[Int64[Tensor, " samples"], Float[Tensor, " samples"], Float[Tensor, "samples 3"], Int64[Tensor, " rays+1"]]:
    """Ray, start and mid point of each sample in an occupied cell, and the index of each ray's first sample.

    These are the fields of `sampling.PackedSamples`. The arguments are those of `sampling.lattice_samples`, and the
    grid's cells.
    """
    march = c_kernels.load(SOURCE, flags=SAME_ROUNDING).march
    rays, threads = len(origins), c_kernels.threads_for(len(origins))
    given = (origins, directions, jitter, nears, fars, torch.cat(occupied_box), occupied)
    inputs = [None if tensor is None else tensor.contiguous() for tensor in given]
    offsets = torch.zeros(rays + 1, dtype=torch.int64)

    def run(*results: Tensor | None) -> None:
        job = Job(*map(c_kernels.pointer, (*inputs, offsets, *results)), resolution, step)
        march(ctypes.byref(job), ctypes.c_int64(rays), ctypes.c_int(threads))

    run(None, None, None)
    torch.cumsum(offsets, 0, out=offsets)
    total = int(offsets[-1])
    results = offsets.new_empty(total), origins.new_empty(total), origins.new_empty(total, 3)
    run(*results)
    return *results, offsets
