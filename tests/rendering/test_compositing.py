"""Rendering against recorded images and gradients, and the cases in which exponentials and sums go wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from consistent4d_ns.field.cascade import CascadeKPlanes
from consistent4d_ns.rendering import compositing
from consistent4d_ns.rendering.compositing import (
    accumulate,
    depth_variance,
    normalised_depth,
    render_weights,
    sum_before,
    sum_before_by_ray,
)
from consistent4d_ns.rendering.sampling import OccupancyGrid, PackedSamples, lattice_samples, ray_offsets, step_size
from tests.support.agreement import assert_agrees, gradient_summary
from tests.support.golden_field import recorded_field, recorded_name
from tests.support.hash_fill import hash_u

STEP = step_size(256)
SumBefore = Callable[[Tensor, PackedSamples], Tensor]
DTYPES = {"f32": torch.float32, "f64": torch.float64}


@pytest.fixture(scope="module")
def recorded(golden, golden_json) -> SimpleNamespace:
    """Recorded scene: its field, rays, samples and images."""
    name = "kplanes_consistent4d_reduced"
    arrays = golden("volume_render.safetensors")
    times = arrays["frames"] / arrays["total_images"] * 2 - 1
    return SimpleNamespace(
        arrays=arrays,
        field=lambda dtype: recorded_field(golden(f"{name}.safetensors"), golden_json(f"{name}.json")["config"], dtype),
        ray_times=times.expand(2, 25).reshape(-1),
        origins=arrays["rays_o"].view(-1, 3),
        directions=arrays["rays_d"].view(-1, 3),
    )


def recorded_samples(recorded: SimpleNamespace, dtype: torch.dtype) -> PackedSamples:
    """The recorded samples: segments end where a float32 running sum put them, so their lengths differ a little."""
    starts, ends = (recorded.arrays[key].to(dtype) for key in ("t_starts", "t_ends"))
    rays = recorded.arrays["ray_indices"].long()
    points = recorded.origins.to(dtype)[rays] + recorded.directions.to(dtype)[rays] * ((starts + ends) / 2)[:, None]
    return PackedSamples(rays, starts, points, cast(float, ends - starts), ray_offsets(rays, len(recorded.origins)))


def render(field: CascadeKPlanes, samples: PackedSamples, ray_times: Tensor) -> dict[str, Tensor]:
    """Images in the recorded terms: [levels, rays, channels]."""
    times = ray_times.to(samples.starts)[samples.ray_indices]
    density, features = field(samples.points, times)
    normals = field.difference_normals(samples.points, times)
    weights = render_weights(density, samples)
    opacity, depth = accumulate(weights, samples), accumulate(weights * samples.mids, samples)
    foreground = accumulate(weights, samples, features.sigmoid())
    normal = F.normalize(accumulate(weights, samples, normals), dim=-1)
    return {
        "weights": weights[..., None],
        "density": density[..., None],
        "features": features,
        "normal": normals,
        "comp_rgb_fg": foreground,
        "comp_rgb": foreground + (1.0 - opacity[..., None]),
        "opacity": opacity[..., None],
        "depth": depth[..., None],
        "z_variance": depth_variance(weights, depth, samples)[..., None],
        "comp_normal": (normal + 1.0) / 2.0 * opacity[..., None],
    }


@pytest.mark.parametrize(("run", "tolerance"), [("f32", 2e-4), ("f64", 1e-9)])
def test_recorded_images(
    recorded: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, run: str, tolerance: float
) -> None:
    monkeypatch.setattr("consistent4d_ns.field.cascade.NORMAL_STEP", torch.tensor(1e-3).item())  # as the recorded run
    images = render(recorded.field(DTYPES[run]), recorded_samples(recorded, DTYPES[run]), recorded.ray_times)
    for name in ("comp_rgb", "comp_rgb_fg", "opacity", "depth", "z_variance", "comp_normal"):
        wanted = recorded.arrays[f"{run}.{name}"].flatten(1, 3)
        assert_agrees(f"{name} {run}", images[name], wanted, tolerance)


def test_recorded_normal_images_from_exact_normals(recorded: SimpleNamespace) -> None:
    """Single normals of differences and of derivatives differ at kinks of the field; images of them hardly do."""
    field, samples = recorded.field(torch.float64), recorded_samples(recorded, torch.float64)
    field.difference_normals = field.normals
    image = render(field, samples, recorded.ray_times)["comp_normal"]
    assert_agrees("normal image", image, recorded.arrays["f64.comp_normal"].flatten(1, 3), 1e-3)


def test_recorded_values_of_samples(recorded: SimpleNamespace) -> None:
    """Recorded from a float64 run, stored in float32."""
    field, samples = recorded.field(torch.float64), recorded_samples(recorded, torch.float64)
    values = render(field, samples, recorded.ray_times)
    for name in ("weights", "density", "features", "normal"):
        assert_agrees(name, values[name], recorded.arrays[f"f64.{name}"], 2e-6)
    shift = 0.01 * 1.7 * torch.from_numpy(hash_u(3 * len(samples), 77)).view(-1, 3)
    times = recorded.ray_times.double()[samples.ray_indices]
    perturbed = field.difference_normals(samples.points + shift, times)
    assert_agrees("perturbed normals", perturbed, recorded.arrays["f64.normal_perturb"], 2e-6)


def test_recorded_samples_are_those_of_a_full_box(recorded: SimpleNamespace) -> None:
    samples = lattice_samples(recorded.origins, recorded.directions, STEP, None, lambda points: points[:, 0] < 2)
    assert torch.equal(samples.ray_indices, recorded.arrays["ray_indices"].long())
    assert_agrees("dense sample starts", samples.starts, recorded.arrays["t_starts"], 1e-5)


def test_images_from_our_own_samples(recorded: SimpleNamespace) -> None:
    samples = lattice_samples(recorded.origins, recorded.directions, STEP, None, lambda points: points[:, 0] < 2)
    images = render(recorded.field(torch.float32), samples, recorded.ray_times)
    for name in ("comp_rgb", "opacity", "depth", "z_variance", "comp_normal"):
        assert_agrees(f"{name}, own samples", images[name], recorded.arrays[f"f32.{name}"].flatten(1, 3), 2e-4)


def test_recorded_images_of_a_thinned_scene(golden, recorded: SimpleNamespace) -> None:
    arrays = golden("occupancy.safetensors")
    grid = OccupancyGrid(32, STEP)
    grid.occupied = torch.from_numpy(np.unpackbits(arrays["binaries_packed.272"].numpy()).astype(bool))
    samples = lattice_samples(arrays["rays_o"].view(-1, 3), arrays["rays_d"].view(-1, 3), STEP, None, grid)
    images = render(recorded.field(torch.float32), samples, recorded.ray_times)
    for name in ("comp_rgb", "opacity", "depth"):
        assert_agrees(f"{name}, culled", images[name], arrays[f"culled.{name}"].flatten(1, 3), 2e-4)


@pytest.mark.parametrize(("run", "tolerance"), [("f32", 1e-3), ("f64", 1e-9)])
def test_recorded_gradients(recorded: SimpleNamespace, run: str, tolerance: float) -> None:
    """Of every parameter, relative to its largest component."""
    field = recorded.field(DTYPES[run])
    images = render(field, recorded_samples(recorded, DTYPES[run]), recorded.ray_times)
    names = ("comp_rgb", "opacity", "depth", "z_variance")
    coefficients = {name: recorded.arrays[f"coef.{name}"].flatten(1, 3).to(DTYPES[run]) for name in names}
    total = torch.stack([(coefficients[name] * images[name]).mean() for name in names]).sum()
    total.backward()
    if run == "f64":
        assert_agrees("S", total.reshape(1), recorded.arrays["S_f32coef"], 1e-9, relative=True)
    for name, parameter in field.named_parameters():
        assert parameter.grad is not None
        name, gradient = recorded_name(name), parameter.grad.double()
        if f"grad.{name}" in recorded.arrays:
            result, wanted = gradient, recorded.arrays[f"grad.{name}"]
        else:
            result, wanted = gradient_summary(gradient), recorded.arrays[f"gradsum.{name}"]
        assert_agrees(f"gradient of S {run}, {name}", result, wanted, tolerance, relative=True)


def packed(counts: list[int], step: float = 0.01) -> PackedSamples:
    """Rays with the given numbers of samples, side by side from distance 1 on."""
    rays = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts, dtype=torch.long))
    places = torch.cat([torch.arange(count) for count in counts]) if counts else torch.empty(0)
    return PackedSamples(rays, 1.0 + step * places, torch.zeros(len(rays), 3), step, ray_offsets(rays, len(counts)))


def one_by_one(values: Tensor, rays: Tensor) -> Tensor:
    """`sum_before`, sample by sample in float64."""
    result = torch.zeros_like(values, dtype=torch.float64)
    for i in range(1, len(rays)):
        if rays[i] == rays[i - 1]:
            result[:, i] = result[:, i - 1] + values[:, i - 1].double()
    return result


SUMS = pytest.mark.parametrize("sums", [sum_before, sum_before_by_ray])


@SUMS
@pytest.mark.parametrize("counts", [[3, 0, 2, 1, 0], [0, 0, 4], [1], [5, 5], [0], []])
def test_sum_before_starts_anew_on_every_ray(counts: list[int], sums: SumBefore) -> None:
    samples = packed(counts)
    values = torch.rand(2, len(samples), generator=torch.Generator().manual_seed(0))
    result = sums(values, samples)
    torch.testing.assert_close(result.double(), one_by_one(values, samples.ray_indices), atol=1e-6, rtol=0)


@SUMS
def test_sum_before_stays_exact_over_many_rays(sums: SumBefore) -> None:
    """In float32, a running sum over all rays would have an error of about 0.1 at the last of them."""
    samples = packed([200] * 20_000)
    values = torch.rand(1, len(samples), generator=torch.Generator().manual_seed(0))
    result = sums(values, samples).view(20_000, 200)
    wanted = values.view(20_000, 200).double().cumsum(dim=-1) - values.view(20_000, 200)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), wanted, atol=5e-5, rtol=0)


@SUMS
def test_sum_before_gradient(sums: SumBefore) -> None:
    samples = packed([3, 0, 2])
    values = torch.rand(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: sums(v, samples), (values,))


def test_a_device_without_float64_is_asked_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on MPS, whose tensors cannot be doubled; rendered on the CPU as if it were one."""
    samples, density = packed([3, 0, 2]), torch.full((2, 5), 7.0, requires_grad=True)
    expected = render_weights(density, samples)
    monkeypatch.setattr(compositing, "DEVICES_WITHOUT_FLOAT64", ("cpu",))
    with NoFloat64():
        weights = render_weights(density, samples)
        weights.sum().backward()
    torch.testing.assert_close(weights, expected)


class NoFloat64(TorchDispatchMode):
    """Refuses whatever makes a float64 tensor."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        assert not (isinstance(result, Tensor) and result.dtype == torch.float64), func
        return result


def test_homogeneous_medium_has_the_closed_form() -> None:
    """Opacity 1 - exp(-sigma length), and every weight the difference of two transmittances."""
    samples, density = packed([50, 0, 100]), torch.full((1, 150), 3.0)
    weights = render_weights(density, samples)
    opacity = accumulate(weights, samples)
    length = torch.tensor([0.5, 0.0, 1.0])
    torch.testing.assert_close(opacity, -torch.expm1(-3.0 * length)[None])
    edges = torch.exp(-3.0 * 0.01 * torch.arange(51))
    torch.testing.assert_close(weights[0, :50], edges[:-1] - edges[1:])


def test_levels_do_not_mix() -> None:
    samples = packed([4, 3])
    density = torch.rand(3, 7, generator=torch.Generator().manual_seed(0)) * 100
    together = render_weights(density, samples)
    assert torch.equal(together, torch.cat([render_weights(density[i : i + 1], samples) for i in range(3)]))


def test_rays_without_samples_are_empty() -> None:
    samples = packed([0, 2, 0])
    colours = accumulate(torch.ones(2, 2), samples, torch.ones(2, 2, 3))
    assert colours.tolist() == [[[0.0] * 3, [2.0] * 3, [0.0] * 3]] * 2
    assert depth_variance(torch.ones(2, 2), torch.zeros(2, 3), samples)[:, [0, 2]].eq(0).all()


@pytest.mark.parametrize("counts", [[0, 0, 0], []])
def test_no_samples_at_all(counts: list[int]) -> None:
    samples = packed(counts)
    density = torch.zeros(2, 0, requires_grad=True)
    weights = render_weights(density, samples)
    opacity = accumulate(weights, samples)
    variance = depth_variance(weights, opacity, samples)
    assert opacity.shape == variance.shape == (2, len(counts))
    assert not opacity.any()
    (opacity.sum() + variance.sum()).backward()
    assert density.grad is not None


@pytest.mark.parametrize("density", [0.0, 1e-30, 1e4, 1e10, 1e30])
def test_no_density_breaks_values_or_gradients(density: float) -> None:
    samples = packed([100, 0, 100])
    sigma = torch.full((2, 200), density, requires_grad=True)
    weights = render_weights(sigma, samples)
    opacity, depth = accumulate(weights, samples), accumulate(weights * samples.mids, samples)
    (opacity + depth + depth_variance(weights, depth, samples)).sum().backward()
    assert sigma.grad is not None
    assert sigma.grad.isfinite().all()
    assert (weights >= 0).all()
    assert (opacity <= 1 + 1e-6).all()
    expected = -torch.expm1(-torch.tensor(density).double()).float()
    torch.testing.assert_close(opacity[:, [0, 2]], expected.expand(2, 2))


@pytest.mark.parametrize("density", [1e4, 1e10])
def test_a_dense_ray_does_not_disturb_its_neighbours(density: float) -> None:
    """Their sums share one running sum, in which the dense ray would swallow them."""
    samples = packed([100, 100])
    sigma = torch.full((1, 200), 5.0)
    alone = render_weights(sigma, samples)[:, 100:]
    sigma[:, :100] = density
    torch.testing.assert_close(render_weights(sigma, samples)[:, 100:], alone)


def test_render_weights_gradient() -> None:
    samples = packed([3, 0, 2], step=0.1)
    density = (5 * torch.rand(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).requires_grad_()
    assert torch.autograd.gradcheck(lambda sigma: render_weights(sigma, samples), (density,))


def test_depth_is_the_weighted_mean_and_far_where_nothing_is() -> None:
    depth = normalised_depth(torch.tensor([1.0, 0.005, 0.0]), torch.tensor([0.5, 0.005, 0.0]), 3.7)
    assert depth.tolist() == pytest.approx([2.0, 3.7, 3.7])
    per_ray = normalised_depth(torch.zeros(2, 3), torch.zeros(2, 3), torch.tensor([1.0, 2.0, 3.0]))
    assert per_ray.tolist() == [[1.0, 2.0, 3.0]] * 2


def test_depth_gradient_is_finite_on_empty_rays() -> None:
    sums = torch.zeros(2, 3, requires_grad=True)
    normalised_depth(sums, sums, 4.0).sum().backward()
    assert sums.grad is not None
    assert sums.grad.isfinite().all()


def test_depth_variance_of_two_walls() -> None:
    """Weights 1/2 at distances 1.005 and 1.035: mean 1.02, spread 0.015."""
    samples = replace(packed([4]), step=0.01)
    weights = torch.tensor([[0.5, 0.0, 0.0, 0.5]], dtype=torch.float64)
    depth = accumulate(weights * samples.mids, samples)
    variance = depth_variance(weights, depth, samples)
    torch.testing.assert_close(variance, torch.full((1, 1), 0.015**2, dtype=torch.float64), atol=1e-8, rtol=0)
