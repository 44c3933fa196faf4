"""The consistency loss agrees with golden numbers, and its gradients go where the setting says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from consistent4d_ns.errors import InputError
from consistent4d_ns.interpolation.config import InterpolationConfig
from consistent4d_ns.interpolation.consistency import Interpolator, consistency_loss, load_interpolator
from consistent4d_ns.interpolation.ifnet import IFNet, Interpolation
from tests.support.hash_fill import images


def golden_clip(arrays: dict[str, Tensor]) -> Tensor:
    """Both levels of the golden rendering, [2, 4, 3, 64, 64]."""
    return torch.stack([arrays["frames"], arrays["icl.comp_rgb_level1_u8"].permute(0, 3, 1, 2)]) / 255


@pytest.mark.parametrize("mode", ["mode2.nograd", "mode3.nograd", "mode3.grad"])
def test_loss_and_gradients_agree_with_golden(golden_net: IFNet, rife_arrays: dict[str, Tensor], mode: str) -> None:
    clip = golden_clip(rife_arrays).requires_grad_()
    loss = consistency_loss(Interpolator(golden_net, grad_through_rife=mode.endswith(".grad")), clip)
    expected = torch.cat([rife_arrays[f"icl.{mode}.vif_{level}"] for level in range(2)])
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-4, atol=0)
    (gradient,) = torch.autograd.grad(loss.sum(), clip)
    gradient = gradient.permute(0, 1, 3, 4, 2)
    parts = {"": gradient, ".level1": gradient[1], ".level1.view1": gradient[1, 1]}
    for ending, part in parts.items():
        if (name := f"icl.{mode}.grad{ending}") in rife_arrays:
            error = (part - rife_arrays[name]).norm() / rife_arrays[name].norm()
            # On level 0 one warp coordinate lies 2e-6 pixels from a pixel centre, where bilinear sampling has a kink:
            # rounding decides which one-sided derivative it takes, and the two differ by 1.7e-3 in all.
            assert error < (3e-3 if name == "icl.mode3.grad.grad" else 1e-4), name


def test_by_default_only_inner_images_learn(golden_net: IFNet) -> None:
    clip = images(4, 32, 32, 1)[None].requires_grad_()
    (gradient,) = torch.autograd.grad(consistency_loss(Interpolator(golden_net), clip).sum(), clip)
    assert not gradient[:, [0, 3]].any()
    assert gradient[:, 1:3].any()


def test_gradient_through_rife_is_the_derivative(golden_state: dict[str, Tensor]) -> None:
    net = IFNet("residual").double().requires_grad_(False)
    net.load_state_dict(golden_state)
    interpolator = Interpolator(net, grad_through_rife=True)
    clip = images(3, 32, 32, 2)[None].double().requires_grad_()
    torch.manual_seed(0)
    direction = torch.randn_like(clip)
    (gradient,) = torch.autograd.grad(consistency_loss(interpolator, clip).sum(), clip)
    with torch.no_grad():
        ahead, behind = (consistency_loss(interpolator, clip + step * direction).sum() for step in (1e-6, -1e-6))
    assert (gradient * direction).sum().item() == pytest.approx((ahead - behind).item() / 2e-6, rel=1e-3)


def test_all_levels_and_times_share_one_call() -> None:
    calls = []

    class Average(nn.Module):
        """Stands in for IFNet: the mean at each time, known exactly."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, first: Tensor, last: Tensor, times: Tensor, scale: float) -> Interpolation:
            calls.append(times.tolist())
            t = times[:, None, None, None]
            return Interpolation([], t, first * (1 - t) + last * t)

    steps = torch.arange(4.0).view(1, 4, 1, 1, 1).expand(2, 4, 3, 32, 32) / 3
    offset = torch.tensor([0.0, 0.5]).view(2, 1, 1, 1, 1) * torch.tensor([0, 1.0, 0, 0]).view(1, 4, 1, 1, 1)
    loss = consistency_loss(Interpolator(Average()), steps + offset)  # type: ignore[arg-type]
    torch.testing.assert_close(loss, torch.tensor([0.0, 0.5**2 / 2]))
    assert calls == [pytest.approx([1 / 3, 2 / 3] * 2)]


def test_fewer_than_three_views_are_refused(golden_net: IFNet) -> None:
    with pytest.raises(ValueError, match="at least 3 views, got 2"):
        consistency_loss(Interpolator(golden_net), torch.zeros(1, 2, 3, 32, 32))


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_sides_are_padded_with_the_border_and_cropped(golden_net: IFNet, scale: float) -> None:
    clip = torch.ones(2, 3, 64, 64)
    clip[:, :, 8:40, 8:30] = images(2, 32, 22, 4)
    interpolator = Interpolator(golden_net, scale)
    time = torch.tensor([0.5])
    with torch.no_grad():
        whole = interpolator(clip[:1], clip[1:], time)
        cut = interpolator(clip[:1, :, :50, :53], clip[1:, :, :50, :53], time)
    # The white border repeated is the white that was cut off, so nothing changes.
    assert cut.shape == (1, 3, 50, 53)
    torch.testing.assert_close(cut, whole[..., :50, :53], atol=1e-5, rtol=0)


def test_precision_is_independent_of_the_callers_autocast(golden_net: IFNet) -> None:
    clip = images(3, 64, 64, 6)[None]
    exact = consistency_loss(Interpolator(golden_net), clip)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(consistency_loss(Interpolator(golden_net), clip), exact)
    reduced = consistency_loss(Interpolator(golden_net, half=torch.bfloat16), clip)
    assert reduced.dtype == torch.float32
    assert 0 < (reduced - exact).abs().item() < 0.1 * exact.item()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_half_precision_on_cuda_stays_close(golden_state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(golden_state, tmp_path / "rife.safetensors")
    clip = images(4, 64, 64, 6)[None].cuda()
    half, single = (
        load_interpolator(InterpolationConfig(weights=tmp_path / "rife.safetensors", precision=precision), "cuda")
        for precision in ("auto", "fp32")
    )
    assert half
    assert single
    assert half.half == torch.float16
    torch.testing.assert_close(consistency_loss(half, clip), consistency_loss(single, clip), rtol=0.02, atol=0)


def test_config_makes_a_frozen_interpolator(prelu_state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(prelu_state, tmp_path / "rife.safetensors")
    config = InterpolationConfig(weights=tmp_path / "rife.safetensors", scale=2.0, grad_through_rife=True)
    interpolator = load_interpolator(config, "cpu")
    assert interpolator
    assert (interpolator.scale, interpolator.half, interpolator.grad_through_rife) == (2.0, None, True)
    assert not any(parameter.requires_grad for parameter in interpolator.net.parameters())
    assert not interpolator.net.training
    assert not isinstance(interpolator, nn.Module)


def test_kind_none_needs_no_weights() -> None:
    assert load_interpolator(InterpolationConfig(kind="none", weights=Path("nowhere")), "cpu") is None


def test_scales_between_powers_of_two_are_refused() -> None:
    with pytest.raises(InputError, match=r"interpolation.scale 3.0: must be one of 0.25, 0.5, 1.0, 2.0, 4.0"):
        load_interpolator(InterpolationConfig(scale=3.0), "cpu")
