"""The cascade dynamic field: K-planes levels, coarse to fine, whose heads add up (method.md section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import combinations
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from consistent4d_ns.errors import InputError

AXIS_PAIRS = tuple(combinations(range(4), 2))
"""Axes (x, y, z, t = 0..3) of the six planes: xy, xz, xt, yz, yt, zt."""
TIME_AXIS = 3
NORMAL_STEP = 1e-3
"""Half-width of the finite differences that give normals, in world units (method.md section 3.3)."""

PlaneReduction = Literal["product", "hybrid"]
DensityBlob = Literal["linear", "gaussian"]
HeadImplementation = Literal["torch", "tcnn"]


def in_parts(coordinates: Float[Tensor, "points 4"]) -> Float[Tensor, "parts some 4"]:
    """The points as a batch of equal parts, the last filled up with zeros.

    On the CPU there is a part for each thread, because torch looks up each of a batch in one thread.
    """
    parts = torch.get_num_threads() if coordinates.device.type == "cpu" else 1
    some = -(-len(coordinates) // parts)
    missing = parts * some - len(coordinates)
    return (F.pad(coordinates, (0, 0, 0, missing)) if missing else coordinates).view(parts, some, 4)


def sample_plane(
    plane: Float[Tensor, "1 channels rows columns"], coordinates: Float[Tensor, "parts points 2"]
) -> Float[Tensor, "parts channels points"]:
    """Bilinear values of a plane at (column, row) coordinates in [-1, 1]; the border value outside."""
    planes = plane.expand(len(coordinates), -1, -1, -1)
    # Points along the last axis, which torch vectorises on the CPU.
    grid = coordinates[:, None]
    return F.grid_sample(planes, grid, mode="bilinear", padding_mode="border", align_corners=True).squeeze(2)


def density_blob(points: Float[Tensor, "points 3"], kind: DensityBlob) -> Float[Tensor, "points"]:
    """What is added to the raw density so that training starts from a ball: 10 (1 - |p| / 0.5), or 10 exp(-2 |p|^2).

    The linear form is Magic3D's and the method's, the Gaussian one DreamFusion's (scale 10, width 0.5).
    """
    if kind == "linear":
        return 10.0 * (1.0 - points.norm(dim=-1) / 0.5)
    return 10.0 * torch.exp(-points.square().sum(dim=-1) / (2.0 * 0.5**2))


def make_head(inputs: int, hidden: int, outputs: int, implementation: HeadImplementation) -> nn.Module:
    """One bias-free hidden layer with ReLU, linear output.

    Raises:
        InputError: `tcnn` is asked for where tinycudann or a CUDA device is missing.
    """
    if implementation == "torch":
        layers = (nn.Linear(inputs, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, outputs, bias=False))
        return nn.Sequential(*layers)
    try:
        import tinycudann as tcnn  # pyright: ignore[reportMissingImports]
    except (ImportError, OSError) as error:  # OSError: it is there, but no CUDA device is
        raise InputError(
            f"implementation 'tcnn' needs tinycudann and a CUDA device ({error}); "
            "install it or use --pipeline.model.implementation torch."
        ) from error
    network = {
        "otype": "FullyFusedMLP" if hidden in (16, 32, 64, 128) else "CutlassMLP",
        "activation": "ReLU",
        "output_activation": "None",
        "n_neurons": hidden,
        "n_hidden_layers": 1,
    }
    return tcnn.Network(inputs, outputs, network)


class KPlanesLevel(nn.Module):
    """Six feature planes and the two heads that read their product.

    Args:
        resolution: Grid size along x, y, z, t.
        channels: Features per plane.
        hidden: Width of both heads.
        reduction: `product` multiplies all six planes; `hybrid` is (xy + xz + yz) * xt * yt * zt.
        implementation: What the heads run on.
    """

    def __init__(
        self,
        resolution: Sequence[int],
        channels: int,
        hidden: int,
        reduction: PlaneReduction = "product",
        implementation: HeadImplementation = "torch",
    ) -> None:
        super().__init__()
        self.reduction: PlaneReduction = reduction
        self.planes = nn.ParameterList(
            nn.Parameter(torch.empty(1, channels, resolution[b], resolution[a])) for a, b in AXIS_PAIRS
        )
        self.density_head = make_head(channels, hidden, 1, implementation)
        self.feature_head = make_head(channels, hidden, 3, implementation)
        self.reset_planes()

    def reset_planes(self) -> None:
        """Static start: spatial planes uniform in (0.1, 0.5), planes with time all ones."""
        for plane, axes in zip(self.planes, AXIS_PAIRS):
            if TIME_AXIS in axes:
                nn.init.ones_(plane)
            else:
                nn.init.uniform_(plane, 0.1, 0.5)

    def forward(self, coordinates: Float[Tensor, "parts points 4"]) -> Float[Tensor, "all_points channels"]:
        """Combined plane features at (x, y, z, t) in [-1, 1]; the parts one after the other."""
        # Slices, because a list of columns would be gathered, and on a GPU copied there each time.
        pairs = (coordinates[..., a : b + 1 : b - a] for a, b in AXIS_PAIRS)
        values = [sample_plane(plane, pair) for plane, pair in zip(self.planes, pairs)]
        return self._combine(values).transpose(1, 2).flatten(0, 1)

    def _combine(self, values: list[Tensor]) -> Tensor:
        if self.reduction == "hybrid":
            xy, xz, xt, yz, yt, zt = values
            return (xy + xz + yz) * xt * yt * zt
        return reduce(torch.mul, values)


class CascadeKPlanes(nn.Module):
    """Density and colour features at a point and time, for every level of the cascade at once.

    Level l is the sum of the heads of levels 0..l: each finer level learns what the coarser ones leave.

    Args:
        resolutions: Per level, grid size along x, y, z, t.
        channels: Features per plane, per level.
        hidden: Width of the heads.
        reduction: How six plane values become one (see `KPlanesLevel`).
        blob: Density that training starts from.
        implementation: What the heads run on.
    """

    def __init__(
        self,
        resolutions: Sequence[Sequence[int]],
        channels: Sequence[int],
        hidden: int = 32,
        reduction: PlaneReduction = "product",
        blob: DensityBlob = "linear",
        implementation: HeadImplementation = "torch",
    ) -> None:
        super().__init__()
        self.blob: DensityBlob = blob
        self.levels = nn.ModuleList(
            KPlanesLevel(resolution, width, hidden, reduction, implementation)
            for resolution, width in zip(resolutions, channels)
        )

    @property
    def num_levels(self) -> int:
        """Levels of the cascade."""
        return len(self.levels)

    def forward(
        self, points: Float[Tensor, "points 3"], times: Float[Tensor, "points"]
    ) -> tuple[Float[Tensor, "levels points"], Float[Tensor, "levels points 3"]]:
        """Densities (>= 0) and raw colour features (their sigmoid is the colour).

        Args:
            points: Positions in the box [-1, 1]^3.
            times: Times in [-1, 1]; first frame -1, last frame 1.
        """
        with torch.autocast(points.device.type, enabled=False):
            planes = self._plane_features(points, times)
            features = self._cascade("feature_head", planes)
            return self._activate(self._cascade("density_head", planes), points), features

    def density(
        self, points: Float[Tensor, "points 3"], times: Float[Tensor, "points"]
    ) -> Float[Tensor, "levels points"]:
        """Densities alone, for normals and the occupancy grid."""
        with torch.autocast(points.device.type, enabled=False):
            return self._activate(self._cascade("density_head", self._plane_features(points, times)), points)

    def normals(
        self, points: Float[Tensor, "points 3"], times: Float[Tensor, "points"]
    ) -> Float[Tensor, "levels points 3"]:
        """Unit normals from central differences of the density, differentiable (method.md section 3.3)."""
        offsets = NORMAL_STEP * torch.eye(3, dtype=points.dtype, device=points.device)
        shifted = torch.stack((points[:, None] + offsets, points[:, None] - offsets)).clamp(-1.0, 1.0)
        density = self.density(shifted.reshape(-1, 3), times[None, :, None].expand(2, -1, 3).reshape(-1))
        ahead, behind = density.view(self.num_levels, 2, -1, 3).unbind(dim=1)
        return F.normalize(-0.5 * (ahead - behind) / NORMAL_STEP, dim=-1)

    def _plane_features(self, points: Tensor, times: Tensor) -> list[Tensor]:
        coordinates = in_parts(torch.cat((points, times[:, None]), dim=-1))
        return [level(coordinates)[: len(points)] for level in self.levels]

    def _cascade(self, head: str, planes: list[Tensor]) -> Tensor:
        """Running sums over levels of one head's outputs, [levels, points, outputs]."""
        outputs = [getattr(level, head)(features) for level, features in zip(self.levels, planes)]
        return torch.stack(outputs).to(planes[0].dtype).cumsum(dim=0)

    def _activate(self, raw: Tensor, points: Tensor) -> Tensor:
        return F.softplus(raw.squeeze(-1) + density_blob(points, self.blob))
