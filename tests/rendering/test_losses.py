"""Loss terms against recorded values and gradients, and the images on which upstream's were NaN."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from consistent4d_ns.rendering.losses import (
    mean_squared_error,
    normal_smoothness_2d,
    normal_smoothness_3d,
    opaqueness,
    orientation,
    peak_signal_noise_ratio,
    sparsity,
    visible_depth_variance,
)
from consistent4d_ns.schedules import Anneal
from tests.support.agreement import assert_agrees
from tests.support.one_order import deterministic

LEVELS = 2
STEPS = ["0", "1250", "2500", "4999", "5000", "9999"]
PER_RAY = ("comp_rgb", "opacity", "z_variance")
PER_SAMPLE = ("weights", "normal", "normal_perturb")
WITH_GRADIENT = ("comp_rgb", "opacity", "z_variance", "normal", "normal_perturb")


@pytest.fixture(scope="module", params=["ref", "zero123"])
def substep(request: pytest.FixtureRequest, golden) -> tuple[str, dict[str, Tensor]]:
    """Name and recorded arrays of one kind of training step."""
    arrays = golden("losses.safetensors")
    prefix = f"{request.param}."
    return request.param, {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def inputs_of(arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    """Recorded renderer outputs as [levels, rays or samples, channels], ready for gradients."""
    inputs = {name: arrays[name].flatten(1, 3) for name in PER_RAY}
    inputs |= {name: arrays[name].view(LEVELS, -1, arrays[name].shape[-1]) for name in PER_SAMPLE}
    return {name: value.clone().requires_grad_() for name, value in inputs.items()}


def loss_terms(inputs: dict[str, Tensor], arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    """All terms of a training step except score distillation and interpolation, under their recorded names."""
    opacity = inputs["opacity"][..., 0]
    directions = arrays["t_dirs"].view(LEVELS, -1, 3)  # drawn anew for each level, which no real image does
    terms = {
        "orient": orientation(inputs["weights"][..., 0], inputs["normal"], directions, opacity),
        "3d_normal_smooth": normal_smoothness_3d(inputs["normal"], inputs["normal_perturb"]),
        "opaque": opaqueness(opacity),
        "z_variance": visible_depth_variance(inputs["z_variance"][..., 0], opacity),
    }
    if "gt_rgb" not in arrays:
        return terms | {"sparsity": sparsity(opacity)}
    mask = arrays["gt_mask"].float().view(-1, 1)
    target = arrays["gt_rgb"].view(-1, 3) * mask + (1.0 - mask)
    colour, silhouette = mean_squared_error(inputs["comp_rgb"], target), mean_squared_error(inputs["opacity"], mask)
    terms |= {f"rgb_{level}": loss for level, loss in enumerate(colour)}
    return terms | {f"mask_{level}": loss for level, loss in enumerate(silhouette)}


def total_loss(terms: dict[str, Tensor], step: int) -> Tensor:
    """Weighted sum with the weights of the paper's configuration; those not named here are 0."""
    weights = {"rgb_0": 500.0, "rgb_1": 500.0, "mask_0": 50.0, "mask_1": 50.0, "3d_normal_smooth": 2.0}
    weights["orient"] = Anneal(1.0, 20.0, 5000)(step)
    return torch.stack([weights.get(name, 0.0) * term for name, term in terms.items()]).sum()


@pytest.mark.parametrize("step", STEPS)
def test_recorded_terms_and_totals(golden_json, substep: tuple[str, dict[str, Tensor]], step: str) -> None:
    kind, arrays = substep
    wanted = golden_json("losses_values.json")[kind][step]
    terms = loss_terms(inputs_of(arrays), arrays)
    recorded_names = {name.removeprefix(f"loss_{kind}_") for name in wanted["terms"]}
    assert set(terms) == {name for name in recorded_names if not name.startswith("sds")}
    for name, term in terms.items():
        value = torch.tensor(wanted["terms"][f"loss_{kind}_{name}"])
        assert_agrees(f"{kind} {name}", term, value, 1e-6)
    assert_agrees(f"{kind} total", total_loss(terms, int(step)), torch.tensor(wanted["total"]), 1e-6, relative=True)


def test_recorded_gradients(substep: tuple[str, dict[str, Tensor]]) -> None:
    """Of the total at step 2500; weights receive none."""
    kind, arrays = substep
    inputs = inputs_of(arrays)
    total_loss(loss_terms(inputs, arrays), 2500).backward()
    assert inputs["weights"].grad is None
    for name in WITH_GRADIENT:
        wanted = arrays[f"grad2500.{name}"].view(inputs[name].shape)
        gradient = inputs[name].grad
        gradient = torch.zeros_like(wanted) if gradient is None else gradient
        assert_agrees(f"{kind} gradient of {name}", gradient, wanted, 1e-5, relative=True)


def ray_terms(accumulation: Tensor, samples: int) -> list[Tensor]:
    """Every term that could divide by a number of rays or samples, for `samples` samples in all."""
    levels = len(accumulation)
    normals = torch.nn.functional.normalize(torch.ones(levels, samples, 3), dim=-1).requires_grad_()
    return [
        orientation(torch.ones(levels, samples), normals, torch.ones(samples, 3), accumulation),
        normal_smoothness_3d(normals, -normals),
        sparsity(accumulation),
        opaqueness(accumulation),
        visible_depth_variance(0.1 * accumulation, accumulation),
        *mean_squared_error(accumulation, torch.ones(accumulation.shape[1])),
    ]


@pytest.mark.parametrize("samples", [0, 5])
@pytest.mark.parametrize("opacity", [0.0, 0.5, 1.0])
def test_no_image_gives_nan(opacity: float, samples: int) -> None:
    """Upstream's depth variance, and with it the logged total, is NaN where no ray is half opaque (quirk 19)."""
    accumulation = torch.full((2, 6), opacity, requires_grad=True)
    terms = torch.stack(ray_terms(accumulation, samples))
    assert terms.isfinite().all()
    terms.sum().backward()
    assert accumulation.grad is not None
    assert accumulation.grad.isfinite().all()


def test_terms_without_samples_or_visible_rays_are_zero() -> None:
    orient, smooth, _, _, variance, *_ = ray_terms(torch.zeros(2, 6), 0)
    assert (orient, smooth, variance) == (0, 0, 0)


def test_orientation_counts_only_visible_normals_that_face_away() -> None:
    """Two samples, seen along +x: one normal faces away (cosine 0.6), one the camera; two of three rays are met."""
    normals = torch.tensor([[[0.6, 0.8, 0.0], [-1.0, 0.0, 0.0]]])
    directions = torch.tensor([[1.0, 0.0, 0.0]] * 2)
    loss = orientation(torch.tensor([[0.5, 0.5]]), normals, directions, torch.tensor([[0.5, 0.5, 0.0]]))
    assert loss.item() == pytest.approx(0.5 * 0.36 / 2)


def test_only_visible_rays_have_a_depth_variance() -> None:
    variance = torch.tensor([[1.0, 2.0, 4.0]], requires_grad=True)
    loss = visible_depth_variance(variance, torch.tensor([[0.5, 0.51, 0.9]]))
    assert loss.item() == pytest.approx(3.0)
    loss.backward()
    assert variance.grad is not None
    assert variance.grad.tolist() == [[0.0, 0.5, 0.5]]


def test_levels_have_their_own_errors() -> None:
    predicted = torch.stack((torch.zeros(2, 4, 3), torch.full((2, 4, 3), 0.5)))
    assert mean_squared_error(predicted, torch.full((2, 4, 3), 0.5)).tolist() == [0.25, 0.0]


def test_normal_images_are_smooth_where_they_are_constant() -> None:
    ramp = torch.arange(4.0)[None, :, None, None].expand(2, 4, 5, 3)
    assert normal_smoothness_2d(torch.ones(1, 4, 4, 3)) == 0
    assert normal_smoothness_2d(ramp) == normal_smoothness_2d(2.0 * ramp.transpose(1, 2)) / 4 == 1


@pytest.mark.parametrize(("loss", "best", "worst"), [(opaqueness, 1.0, 0.5), (sparsity, 0.0, 1.0)])
def test_what_accumulation_terms_prefer(loss: Callable[[Tensor], Tensor], best: float, worst: float) -> None:
    at = {opacity: loss(torch.full((2, 3), opacity)).item() for opacity in (0.0, 0.25, 0.5, 0.75, 1.0)}
    assert at[best] == min(at.values())
    assert at[worst] == max(at.values())


def test_entropy_of_half_opaque_rays_is_one_bit() -> None:
    assert opaqueness(torch.full((1, 1), 0.5)).item() == pytest.approx(math.log(2))


def test_psnr() -> None:
    image = torch.full((4, 4, 3), 0.5)
    assert peak_signal_noise_ratio(image, image + 0.1).item() == pytest.approx(20.0, abs=1e-4)
    assert peak_signal_noise_ratio(image, image) == math.inf


def terms_of_samples(padding: int) -> tuple[float, float]:
    """The terms that are sums over samples, of 3000 samples and some padding."""
    generator = torch.Generator().manual_seed(3)
    weights, *vectors = (torch.randn(2, 3000, size, generator=generator) for size in (1, 3, 3))
    weights = torch.nn.functional.pad(weights[..., 0].abs(), (0, padding))
    normals, others = (torch.nn.functional.pad(vector, (0, 0, 0, padding)) for vector in vectors)
    kept = torch.nn.functional.pad(torch.ones(3000), (0, padding))
    facing = orientation(weights, normals, others[0], torch.ones(2, 7))
    return float(facing), float(normal_smoothness_3d(normals, others, kept))


def test_padding_does_not_change_a_loss_where_sums_are_taken_in_one_order() -> None:
    """To the last bit; else it does."""
    paddings = range(0, 4000, 333)
    assert all(len(set(values)) > 1 for values in zip(*map(terms_of_samples, paddings), strict=True))
    with deterministic():
        assert len(set(map(terms_of_samples, paddings))) == 1
