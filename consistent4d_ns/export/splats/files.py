"""Files of Gaussians: the PLY of 3D Gaussian splatting, and compressed ones by GaussForge.

Seen from the input camera's side (azimuth 0), which is +x of the world, files have x to the right. In PLY, y points
down and z forward, as in Gaussian splatting's own scenes, whose axes are those of COLMAP's cameras. In SPZ, y points up
and z backward, as the format demands.
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
from consistent4d_ns.export.rotations import rotation_matrices
from consistent4d_ns.export.splats.gaussians import Gaussians
from consistent4d_ns.export.splats.options import SplatFormat
from consistent4d_ns.export.splats.sequence import SplatFrame

PROPERTIES = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)
"""Properties of each Gaussian, in the order of the original: all float32; normals are 0, as nobody reads them."""
SH_0 = 0.28209479177387814
"""The spherical harmonic of degree 0: colour = 0.5 + SH_0 f_dc."""
Y_DOWN, Y_UP = (0.5, 0.5, 0.5, -0.5), (0.5, -0.5, -0.5, -0.5)
"""Quaternions w, x, y, z that turn the world to a file's axes: (x, y, z) becomes (y, -z, -x), or (y, z, x)."""


def write_splats(
    folder: Path, frames: Iterable[SplatFrame], format: SplatFormat, timeline: Timeline, name: str
) -> list[int]:
    """Write a numbered file of each frame: NAME0001.ply and so on.

    Returns:
        Indices of the frames with which a set of Gaussians begins.
    """
    begins: list[int] = []
    for frame in frames:
        (folder / f"{name}{len(begins) + 1:04d}.{format}").write_bytes(encode(frame.gaussians, format))
        begins.append(frame.begin)
    write_index(folder, timeline, "y" if format == "spz" else "-y", sets=begins)
    return sorted(set(begins))


def encode(gaussians: Gaussians, format: SplatFormat) -> bytes:
    """The contents of a file."""
    if format == "ply":
        return ply(gaussians, Y_DOWN)
    from gaussforge import GaussForge

    # It changes no axes.
    data = ply(gaussians, Y_UP if format == "spz" else Y_DOWN)
    converted = GaussForge().convert(data, "ply", format)
    if "error" in converted:
        raise RuntimeError(f"GaussForge cannot write {format}: {converted['error']}")
    return converted["data"]


def ply(gaussians: Gaussians, axes: tuple[float, float, float, float] = Y_DOWN) -> bytes:
    """The binary PLY that the original implementation of Gaussian splatting writes, with colours of degree 0."""
    turn = torch.tensor(axes, device=gaussians.means.device)
    columns = (
        gaussians.means @ rotation_matrices(turn[None])[0].T,
        torch.zeros_like(gaussians.means),
        (gaussians.colours - 0.5) / SH_0,
        gaussians.opacity_logits[:, None],
        gaussians.log_scales,
        turned(gaussians.quaternions, turn),
    )
    values = torch.cat(columns, dim=1).detach().cpu().numpy().astype("<f4")
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(values)}"]
    lines += [f"property float {name}" for name in PROPERTIES]
    return "\n".join([*lines, "end_header", ""]).encode() + np.ascontiguousarray(values).tobytes()


def turned(quaternions: Float[Tensor, "n 4"], turn: Float[Tensor, "4"]) -> Float[Tensor, "n 4"]:
    """Unit quaternions of rotations that `turn`, a unit quaternion too, follows."""
    w, x, y, z = F.normalize(quaternions, dim=-1).unbind(dim=-1)
    a, b, c, d = turn
    product = (
        a * w - b * x - c * y - d * z,
        a * x + b * w + c * z - d * y,
        a * y - b * z + c * w + d * x,
        a * z + b * y - c * x + d * w,
    )
    return torch.stack(product, dim=-1)
