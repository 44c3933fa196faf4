"""Drawing Gaussians: as gsplat's own functions do, with true gradients."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from benchmarks.splats import drawn_by_tiles, read_back
from consistent4d_ns.data.cameras import orbit_views
from consistent4d_ns.export.splats import raster
from consistent4d_ns.export.splats.files import ply
from consistent4d_ns.export.splats.gaussians import Gaussians
from consistent4d_ns.export.splats.raster import draw
from tests.export.splats.objects import VIEW, directions, some_gaussians

SIZE = 48


@pytest.mark.parametrize("azimuth", range(4))
def test_a_written_file_looks_as_gsplat_projects_and_composites_it(azimuth: int):
    gaussians, view = some_gaussians(), directions(4)[azimuth : azimuth + 1]
    image, _ = draw(gaussians, view, SIZE)
    assert image.min() < 0.7
    reference = drawn_by_tiles(read_back(ply(gaussians), "ply"), view, SIZE)
    # gsplat cuts Gaussians off at three standard deviations.
    assert (image - reference).abs().max() < 0.02
    assert (image - reference).square().mean() < 1e-6


def test_the_image_is_white_where_nothing_is_seen():
    behind = some_gaussians()
    behind = replace(behind, means=behind.means + 10.0 * VIEW.poses()[0, :, 3])
    for gaussians in (behind, behind[torch.zeros(0, dtype=torch.long)]):
        image, opacity = draw(gaussians, VIEW, SIZE)
        assert (image == 1.0).all()
        assert (opacity == 0.0).all()


def test_what_is_near_hides_what_is_far():
    view = orbit_views(0.0, 0.0, 2.0, 49.1)
    pair = Gaussians(
        means=torch.tensor([[-0.4, 0.0, 0.0], [0.4, 0.0, 0.0]]),
        quaternions=torch.tensor([[1.0, 0.0, 0.0, 0.0]]).expand(2, 4),
        log_scales=torch.full((2, 3), -2.0),
        opacity_logits=torch.full((2,), 9.0),
        colour_logits=torch.tensor([[9.0, -9.0, -9.0], [-9.0, 9.0, -9.0]]),
    )
    middle = draw(pair, view, SIZE)[0][SIZE // 2, SIZE // 2]
    assert middle.argmax() == 1
    assert middle[0] < 0.1


@pytest.mark.parametrize("name", [field.name for field in fields(Gaussians)])
def test_gradients_are_those_of_finite_differences(name: str, monkeypatch):
    # Without the steps where a Gaussian is cut off, which have no gradient.
    monkeypatch.setattr(raster, "LEAST_ALPHA", 1e-7)
    monkeypatch.setattr(raster, "LEAST_WEIGHT", 0.0)
    gaussians, weights = some_gaussians(20), torch.randn(SIZE, SIZE, 3, generator=torch.Generator().manual_seed(1))
    value = getattr(gaussians, name).clone().requires_grad_()
    direction = torch.randn(value.shape, generator=torch.Generator().manual_seed(2))

    def score(moved: torch.Tensor) -> torch.Tensor:
        image, opacity = draw(replace(gaussians, **{name: moved}), VIEW, SIZE)
        return (image * weights).sum() + (opacity * weights[..., 0]).sum()

    (gradient,) = torch.autograd.grad(score(value), value)
    step = 1e-3
    with torch.no_grad():
        difference = (score(value + step * direction) - score(value - step * direction)) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(float(difference), rel=0.05, abs=0.1)
