"""Draws Gaussians as splatting does, in PyTorch and with gradients, on every device.

The image is that of gsplat's and the original's "classic" rasterisation: a Gaussian's covariance is projected by the
camera's Jacobian at its centre and widened by `WIDENING`, its opacity falls off like the projected Gaussian, and all
are composited from front to back in the order of their centres. The parts that a pixel sees are samples on its ray, so
that the kernels of the volume rendering composite them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from consistent4d_ns.data.cameras import OrbitViews
from consistent4d_ns.data.rays import focal_length
from consistent4d_ns.export.raster import pixels_of
from consistent4d_ns.export.splats.gaussians import Gaussians
from consistent4d_ns.rendering.compositing import composite, render_weights
from consistent4d_ns.rendering.sampling import PackedSamples, ray_offsets

WIDENING = 0.3
"""Added to the projected variances, in squared pixels, so that no Gaussian is smaller than a pixel."""
LEAST_ALPHA = 1.0 / 255.0
"""Opacity in a pixel below which a Gaussian is left out there."""
MOST_ALPHA = 0.999
"""Opacity in a pixel to which a Gaussian is limited there."""
LEAST_WEIGHT = 1e-4
"""Parts of a pixel that contribute less than this are left out."""
NEAR = 0.01
"""Least distance in front of the camera, in world units."""


@dataclass(frozen=True)
class Projected:
    """Gaussians in one image, nearest first; lengths are in pixels, x to the right and y down."""

    order: Int64[Tensor, " gaussians"]
    """Which Gaussian each one is."""
    centres: Float[Tensor, "gaussians 2"]
    """Where the centres are."""
    covariances: Float[Tensor, "gaussians 3"]
    """Covariances xx, xy, yy."""


@dataclass(frozen=True)
class Parts:
    """What each pixel sees of each Gaussian, ordered by pixel and then by distance."""

    place: Int64[Tensor, " parts"]
    """Place of the Gaussian in `Projected`."""
    pixel: Int64[Tensor, " parts"]
    """Pixel, row after row."""

    def where(self, kept: Tensor) -> Parts:
        """Some of the parts: a mask, or indices."""
        return Parts(self.place[kept], self.pixel[kept])


def draw(
    gaussians: Gaussians, view: OrbitViews, size: int
) -> tuple[Float[Tensor, "size size 3"], Float[Tensor, "size size"]]:
    """Image on white, and its opacity, of one view; differentiable in all that is drawn."""
    projected = project(gaussians, view, size)
    with torch.no_grad():
        parts = seen_parts(gaussians, projected, size)
    alpha = alphas(gaussians, projected, parts, size)
    samples = as_samples(parts.pixel, size * size)
    features = gaussians.colour_logits[projected.order][parts.place]
    sums = composite(-torch.log1p(-alpha)[None], features[None].contiguous(), samples)
    opacity = sums.accumulation[0].view(size, size)
    return sums.colour[0].view(size, size, 3) + 1.0 - opacity[..., None], opacity


def draw_with_gsplat(
    gaussians: Gaussians, view: OrbitViews, size: int
) -> tuple[Float[Tensor, "size size 3"], Float[Tensor, "size size"]]:
    """As `draw`, by gsplat's CUDA kernels (see `gsplat_fault`)."""
    from gsplat import rasterization

    axes, position = camera(view)
    to_camera = torch.eye(4, device=axes.device)
    to_camera[:3, :3], to_camera[:3, 3] = axes.T, -axes.T @ position
    lens = torch.eye(3, device=axes.device)
    lens[:2] *= focal_length(view.fovy, size)[0]
    lens[:2, 2] = 0.5 * size
    rgb, opacity, _ = rasterization(
        gaussians.means,
        F.normalize(gaussians.quaternions, dim=-1),
        gaussians.log_scales.exp(),
        gaussians.opacities,
        gaussians.colours,
        to_camera[None],
        lens[None],
        size,
        size,
        near_plane=NEAR,
        eps2d=WIDENING,
        packed=False,
        backgrounds=torch.ones(1, 3, device=axes.device),
    )
    return rgb[0], opacity[0, ..., 0]


def gsplat_fault() -> str | None:
    """Why gsplat's CUDA kernels cannot be used; None if they can. The first call may compile them for minutes."""
    if not torch.cuda.is_available():
        return "there is no CUDA device"
    try:
        from gsplat.cuda import _backend
    except Exception as error:  # What a failing compiler or loader raises is not specified.
        return (str(error) or type(error).__name__).splitlines()[0]
    return None if _backend._C is not None else "they are not compiled, and there is no CUDA compiler (nvcc)"


def camera(view: OrbitViews) -> tuple[Float[Tensor, "3 3"], Float[Tensor, "3"]]:
    """Axes of a camera, right, down and forward as columns, and its position; in world units."""
    pose = view.poses()[0]
    return pose[:, :3] * torch.tensor((1.0, -1.0, -1.0), device=pose.device), pose[:, 3]


def project(gaussians: Gaussians, view: OrbitViews, size: int) -> Projected:
    """Project Gaussians to an image of `size` x `size` pixels; those behind the camera are left out."""
    (axes, position), focal = camera(view), focal_length(view.fovy, size)[0]
    places = (gaussians.means - position) @ axes
    with torch.no_grad():
        order = places[:, 2].argsort()
        order = order[places[order, 2] > NEAR]
    x, y, z = places[order].unbind(dim=-1)
    zero = torch.zeros_like(z)
    jacobian = torch.stack((focal / z, zero, -focal * x / z**2, zero, focal / z, -focal * y / z**2), dim=-1)
    jacobian = jacobian.view(-1, 2, 3) @ axes.mT
    covariance = jacobian @ gaussians.covariances()[order] @ jacobian.mT
    entries = (covariance[:, 0, 0] + WIDENING, covariance[:, 0, 1], covariance[:, 1, 1] + WIDENING)
    centres = torch.stack((x, y), dim=-1) * (focal / z)[:, None] + 0.5 * size
    return Projected(order, centres, torch.stack(entries, dim=-1))


def seen_parts(gaussians: Gaussians, projected: Projected, size: int) -> Parts:
    """All parts that contribute to the image."""
    parts = covered(projected, gaussians.opacities[projected.order], size)
    alpha = alphas(gaussians, projected, parts, size)
    kept = (alpha >= LEAST_ALPHA).nonzero()[:, 0]
    kept = kept[parts.pixel[kept].argsort(stable=True)]
    parts, alpha = parts.where(kept), alpha[kept]
    weights = render_weights(-torch.log1p(-alpha)[None], as_samples(parts.pixel, size * size))[0]
    return parts.where(weights >= LEAST_WEIGHT)


def covered(projected: Projected, opacities: Float[Tensor, " gaussians"], size: int) -> Parts:
    """Pixels in the rectangle around the ellipse in which each Gaussian counts, Gaussian after Gaussian."""
    reach = (2.0 * (opacities / LEAST_ALPHA).clamp(min=1.0).log()).sqrt()
    half = reach[:, None] * projected.covariances[:, [0, 2]].sqrt()
    # Pixel i is centred at i + 0.5.
    low = (projected.centres - half - 0.5).ceil().clamp(0, size).long()
    high = (projected.centres + half - 0.5).floor().clamp(-1, size - 1).long() + 1
    place, column, row = pixels_of(low, *(high - low).clamp(min=0).unbind(dim=-1))
    return Parts(place, row * size + column)


def alphas(gaussians: Gaussians, projected: Projected, parts: Parts, size: int) -> Float[Tensor, " parts"]:
    """Opacity of each part."""
    xx, xy, yy = projected.covariances.unbind(dim=-1)
    inverse = torch.stack((yy, -xy, xx), dim=-1) / (xx * yy - xy * xy)[:, None]
    # One table, so that values are looked up, and gradients summed, once.
    table = torch.cat((projected.centres, inverse, gaussians.opacities[projected.order, None]), dim=1)
    x, y, a, b, c, opacity = table.index_select(0, parts.place).unbind(dim=-1)
    dx = (parts.pixel % size) + 0.5 - x
    dy = torch.div(parts.pixel, size, rounding_mode="floor") + 0.5 - y
    return (opacity * torch.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)).clamp(max=MOST_ALPHA)


def as_samples(pixel: Int64[Tensor, " parts"], pixels: int) -> PackedSamples:
    """Parts as samples of rays, one ray per pixel, with segments of length 1."""
    nothing = torch.zeros(len(pixel), device=pixel.device)
    return PackedSamples(pixel, nothing, nothing[:, None].expand(-1, 3), 1.0, ray_offsets(pixel, pixels))
