"""Files of Gaussians: the PLY of 3D Gaussian splatting, and compressed ones by GaussForge.

The files have the axes of Gaussian splatting's own scenes, which are those of COLMAP's cameras: x right, y down, z
forward, as the input camera's side (azimuth 0) sees the object. The world is z up with that camera on the side of +x.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from consistent4d_ns.export.files import write_index
from consistent4d_ns.export.options import Timeline
from consistent4d_ns.export.splats.gaussians import Gaussians
from consistent4d_ns.export.splats.options import SplatFormat

PROPERTIES = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)
"""Properties of each Gaussian, in the order of the original: all float32; normals are 0, as nobody reads them."""
SH_0 = 0.28209479177387814
"""The spherical harmonic of degree 0: colour = 0.5 + SH_0 f_dc."""
WORLD_TURN = (0.5, 0.5, 0.5, -0.5)
"""Quaternion w, x, y, z that turns vectors of the world to a file's axes: (x, y, z) becomes (y, -z, -x)."""


def write_splats(folder: Path, frames: Iterable[Gaussians], format: SplatFormat, timeline: Timeline, name: str) -> None:
    """Write a numbered file of each frame: NAME0001.ply and so on."""
    for number, gaussians in enumerate(frames, start=1):
        (folder / f"{name}{number:04d}.{format}").write_bytes(encode(gaussians, format))
    write_index(folder, timeline, "-y")


def encode(gaussians: Gaussians, format: SplatFormat) -> bytes:
    """The contents of a file."""
    data = ply(gaussians)
    if format == "ply":
        return data
    from gaussforge import GaussForge

    converted = GaussForge().convert(data, "ply", format)
    if "error" in converted:
        raise RuntimeError(f"GaussForge cannot write {format}: {converted['error']}")
    return converted["data"]


def ply(gaussians: Gaussians) -> bytes:
    """The binary PLY that the original implementation of Gaussian splatting writes, with colours of degree 0."""
    columns = (
        in_file_axes(gaussians.means),
        torch.zeros_like(gaussians.means),
        (gaussians.colours - 0.5) / SH_0,
        gaussians.opacity_logits[:, None],
        gaussians.log_scales,
        turned(gaussians.quaternions),
    )
    values = torch.cat(columns, dim=1).detach().cpu().numpy().astype("<f4")
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(values)}"]
    lines += [f"property float {name}" for name in PROPERTIES]
    return "\n".join([*lines, "end_header", ""]).encode() + np.ascontiguousarray(values).tobytes()


def in_file_axes(vectors: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """World vectors in a file's axes."""
    return torch.stack((vectors[:, 1], -vectors[:, 2], -vectors[:, 0]), dim=-1)


def turned(quaternions: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
    """Unit quaternions of rotations to a file's axes, from those to the world's; w is not negative."""
    w, x, y, z = F.normalize(quaternions, dim=-1).unbind(dim=-1)
    a, b, c, d = WORLD_TURN
    product = (
        a * w - b * x - c * y - d * z,
        a * x + b * w + c * z - d * y,
        a * y - b * z + c * w + d * x,
        a * z + b * y - c * x + d * w,
    )
    result = torch.stack(product, dim=-1)
    return torch.where(result[:, :1] < 0, -result, result)
