"""The cascade dynamic field: K-planes levels, coarse to fine, whose heads add up (method.md section 3)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from consistent4d_ns.errors import InputError
from consistent4d_ns.field.heads import fits_kernel, head_values, head_weights, make_head
from consistent4d_ns.field.level_kernel import accepts, level_values
from consistent4d_ns.field.planes import plane_features, plane_features_and_jacobian
from consistent4d_ns.field.types import (
    AXIS_PAIRS,
    SPACE_PAIRS,
    TIME_AXIS,
    HeadImplementation,
    HeadValues,
    PlaneReduction,
    axes_of,
)

NORMAL_STEP = 1e-3
"""Half-width of the finite differences that give normals, in world units (method.md section 3.3)."""

DensityBlob = Literal["linear", "gaussian"]


def density_blob(points: Float[Tensor, "points 3"], kind: DensityBlob) -> Float[Tensor, " points"]:
    """Bias of the raw density, so that training starts from a ball: 10 (1 - |p| / 0.5), or 10 exp(-2 |p|^2).

    The linear blob is that of Magic3D and of the method, the Gaussian one that of DreamFusion (scale 10, width 0.5).
    """
    if kind == "linear":
        return 10.0 * (1.0 - points.norm(dim=-1) / 0.5)
    return 10.0 * torch.exp(-points.square().sum(dim=-1) / (2.0 * 0.5**2))


def density_blob_gradient(points: Float[Tensor, "points 3"], kind: DensityBlob) -> Float[Tensor, "points 3"]:
    """Derivatives of `density_blob`; 0 at the origin."""
    if kind == "linear":
        return -20.0 * F.normalize(points, dim=-1)
    return -4.0 * points * density_blob(points, kind)[:, None]


class KPlanesLevel(nn.Module):
    """Six feature planes and the two heads that read their product; three of them in a level without time.

    Args:
        resolution: Grid size along x, y, z, t; 0 along t: there are no planes over time.
        channels: Features per plane.
        hidden: Width of both heads.
        reduction: `product` multiplies all planes; `hybrid` is (xy + xz + yz) * xt * yt * zt.
        implementation: Backend of the heads.
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
        pairs = AXIS_PAIRS if resolution[TIME_AXIS] > 0 else SPACE_PAIRS
        self.planes = nn.ParameterList(
            nn.Parameter(torch.empty(1, channels, resolution[b], resolution[a])) for a, b in pairs
        )
        self.density_head = make_head(channels, hidden, 1, implementation)
        self.feature_head = make_head(channels, hidden, 3, implementation)
        self.reset_planes()

    def reset_planes(self) -> None:
        """Static start: spatial planes uniform in (0.1, 0.5), planes with time all ones."""
        for plane, axes in zip(self.planes, axes_of(self.planes), strict=True):
            if TIME_AXIS in axes:
                nn.init.ones_(plane)
            else:
                nn.init.uniform_(plane, 0.1, 0.5)

    def forward(self, coordinates: Float[Tensor, "points 4"]) -> Float[Tensor, "points channels"]:
        """Combined plane features at (x, y, z, t) in [-1, 1]."""
        return plane_features(list(self.planes), coordinates, self.reduction)

    def with_jacobian(
        self, coordinates: Float[Tensor, "points 4"]
    ) -> tuple[Float[Tensor, "points channels"], Float[Tensor, "points 3 channels"]]:
        """Combined plane features and their derivatives along x, y, z."""
        return plane_features_and_jacobian(list(self.planes), coordinates, self.reduction)

    def read(self, coordinates: Float[Tensor, "points 4"], colour: bool, gradient: bool) -> HeadValues:
        """The heads' outputs at (x, y, z, t) in [-1, 1]; colour and gradient where they are asked for."""
        if not gradient and self.runs_in_c(coordinates):
            heads = head_weights(self.density_head), head_weights(self.feature_head) if colour else None
            return level_values(list(self.planes), *heads, coordinates, self.reduction)
        features, jacobian = self.with_jacobian(coordinates) if gradient else (self(coordinates), None)
        colour_head = self.feature_head if colour else None
        return head_values(self.density_head, colour_head, features, jacobian)

    def runs_in_c(self, coordinates: Float[Tensor, "points 4"]) -> bool:
        """Whether the kernel for the CPU can be used, for features without derivatives and torch heads."""
        return isinstance(self.density_head, nn.Sequential) and accepts(
            list(self.planes), head_weights(self.density_head)[0], coordinates
        )


class CascadeKPlanes(nn.Module):
    """Density and colour features at a point and time, for every level of the cascade at once.

    Level l is the sum of the heads of levels 0..l: each finer level learns the residual of the coarser ones.

    Args:
        resolutions: Per level, grid size along x, y, z, t; 0 along t: the level does not depend on time.
        channels: Features per plane, per level.
        hidden: Width of the heads.
        reduction: How the planes' values become one (see `KPlanesLevel`).
        blob: Shape of the initial density bias.
        implementation: Backend of the heads.

    Raises:
        InputError: Not as many channel counts as resolutions.
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
        if len(resolutions) != len(channels):
            raise InputError(
                f"{len(resolutions)} levels of the field need as many channel counts, not {len(channels)}."
            )
        self.blob: DensityBlob = blob
        self.has_torch_heads = implementation != "tcnn"
        self.levels = nn.ModuleList(
            KPlanesLevel(resolution, width, hidden, reduction, implementation)
            for resolution, width in zip(resolutions, channels, strict=True)
        )

    @property
    def is_static(self) -> bool:
        """Whether no level depends on time."""
        return all(len(cast(KPlanesLevel, level).planes) == len(SPACE_PAIRS) for level in self.levels)

    @property
    def heads_fit_kernel(self) -> bool:
        """Whether the kernel accepts the heads of all levels (see `heads.fits_kernel`)."""
        return all(fits_kernel(cast(KPlanesLevel, level).density_head) for level in self.levels)

    @property
    def num_levels(self) -> int:
        """Levels of the cascade."""
        return len(self.levels)

    def forward(
        self, points: Float[Tensor, "points 3"], times: Float[Tensor, " points"]
    ) -> tuple[Float[Tensor, "levels points"], Float[Tensor, "levels points 3"]]:
        """Densities (>= 0) and raw colour features (their sigmoid is the colour).

        Args:
            points: Positions in the box [-1, 1]^3.
            times: Times in [-1, 1]; first frame -1, last frame 1.
        """
        with torch.autocast(points.device.type, enabled=False):
            values = self._read(points, times, colour=True)
            return F.softplus(self._raw_density(values, points)), self._colour_features(values)

    def with_normals(
        self, points: Float[Tensor, "points 3"], times: Float[Tensor, " points"]
    ) -> tuple[Float[Tensor, "levels points"], Float[Tensor, "levels points 3"], Float[Tensor, "levels points 3"]]:
        """The results of `forward` and `normals`, from one query of the planes."""
        if not self.has_torch_heads:
            return *self(points, times), self.difference_normals(points, times)
        with torch.autocast(points.device.type, enabled=False):
            values = self._read(points, times, colour=True, gradient=True)
            raw = self._raw_density(values, points)
            return F.softplus(raw), self._colour_features(values), self._normals(values, raw, points)

    def density(
        self, points: Float[Tensor, "points 3"], times: Float[Tensor, " points"]
    ) -> Float[Tensor, "levels points"]:
        """Densities alone, for the occupancy grid and surfaces."""
        with torch.autocast(points.device.type, enabled=False):
            return F.softplus(self._raw_density(self._read(points, times), points))

    def normals(
        self, points: Float[Tensor, "points 3"], times: Float[Tensor, " points"]
    ) -> Float[Tensor, "levels points 3"]:
        """Unit normals from the gradient of the density in space, differentiable in the parameters.

        The limit of upstream's central differences (`difference_normals`) for small steps. Outside the box the density
        is taken as constant along the axes that left it; where it is 0 in floating point, so is the normal.
        """
        if not self.has_torch_heads:
            return self.difference_normals(points, times)
        with torch.autocast(points.device.type, enabled=False):
            values = self._read(points, times, gradient=True)
            return self._normals(values, self._raw_density(values, in_box(points)), points)

    def difference_normals(
        self, points: Float[Tensor, "points 3"], times: Float[Tensor, " points"]
    ) -> Float[Tensor, "levels points 3"]:
        """Unit normals from central differences of the density (method.md section 3.3), for tinycudann heads."""
        offsets = NORMAL_STEP * torch.eye(3, dtype=points.dtype, device=points.device)
        shifted = in_box(torch.stack((points[:, None] + offsets, points[:, None] - offsets)))
        density = self.density(shifted.reshape(-1, 3), times[None, :, None].expand(2, -1, 3).reshape(-1))
        ahead, behind = density.view(self.num_levels, 2, -1, 3).unbind(dim=1)
        return F.normalize(-0.5 * (ahead - behind) / NORMAL_STEP, dim=-1)

    def _read(self, points: Tensor, times: Tensor, colour: bool = False, gradient: bool = False) -> list[HeadValues]:
        coordinates = torch.cat((points, times[:, None]), dim=-1)
        return [cast(KPlanesLevel, level).read(coordinates, colour, gradient) for level in self.levels]

    def _raw_density(self, values: list[HeadValues], points: Tensor) -> Float[Tensor, "levels points"]:
        """Density before the softplus."""
        return running_sums(level.density for level in values) + density_blob(points, self.blob)

    def _colour_features(self, values: list[HeadValues]) -> Float[Tensor, "levels points 3"]:
        return running_sums(cast(Tensor, level.colour) for level in values)

    def _normals(
        self, values: list[HeadValues], raw: Float[Tensor, "levels points"], points: Tensor
    ) -> Float[Tensor, "levels points 3"]:
        """Normals from the gradients of the raw density, and the raw density itself, which is detached.

        Its factor in the gradient of the density, sigmoid(raw), cancels in the normalisation and so has no gradient. It
        is kept because it makes the normal 0 where the density underflows.
        """
        head_gradient = running_sums(cast(Tensor, level.gradient) for level in values)
        inside = points.abs() <= 1.0
        gradient = head_gradient + density_blob_gradient(in_box(points), self.blob) * inside
        return F.normalize(-torch.sigmoid(raw.detach())[..., None] * gradient, dim=-1)


def in_box(points: Float[Tensor, "*points 3"]) -> Float[Tensor, "*points 3"]:
    """Points moved into the box [-1, 1]^3. On its surface gradients pass (in torch.clamp up to 2.11, not in 2.14)."""
    return torch.where(points.abs() <= 1.0, points, points.detach().sign())


def running_sums(values: Iterable[Tensor]) -> Float[Tensor, "values ..."]:
    """The first value, the sum of the first two, and so on."""
    return torch.stack(list(accumulate(values)))
