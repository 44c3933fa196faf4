"""IFNet agrees with the golden numbers of the original network and behaves in both layouts."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from consistent4d_ns.interpolation.ifnet import IFNet, Interpolation, Layout, side_multiple, warp
from tests.support.hash_fill import hash_u, images


def interpolate(net: IFNet, frames: Tensor, time: float) -> Interpolation:
    """Between the first and last of uint8 frames [n, 3, h, w]."""
    clip = frames.to(next(net.parameters()).dtype) / 255
    with torch.no_grad():
        return net(clip[:1], clip[-1:], torch.tensor([time], dtype=clip.dtype))


def exact_time(name: str) -> float:
    """The time in an array's name, "t0.3333." being a third."""
    match = re.search(r"t(0\.\d+)\.", name)
    assert match
    return {"0.3333": 1 / 3, "0.6667": 2 / 3}.get(match[1], float(match[1]))


def test_hash_fill_agrees_with_its_check_values(
    golden_json: Callable[[str], Any], rife_arrays: dict[str, Tensor]
) -> None:
    check = golden_json("hash_check.json")
    assert hash_u(4, 0).tolist() == check["hash_u(4,0)"]
    assert hash_u(4, 2000).tolist() == check["hash_u(4,2000)"]
    assert hash_u(100000, 7)[-1] == check["hash_u(100000,7)_last"]
    assert torch.equal((images(4, 64, 64, 3000) * 255).round().byte(), rife_arrays["frames"])


def test_parameters_are_those_of_the_golden_network(
    golden_json: Callable[[str], Any], golden_state: dict[str, Tensor]
) -> None:
    assert list(golden_state) == list(IFNet("residual").state_dict())
    for entry in golden_json("rife.json")["parameters"]:
        values = golden_state[entry["name"]].double()
        assert values.sum().item() == pytest.approx(entry["sum"], abs=1e-6)
        assert values.abs().sum().item() == pytest.approx(entry["abs_sum"], abs=1e-6)


def test_images_flows_and_masks_agree_with_golden(golden_net: IFNet, rife_arrays: dict[str, Tensor]) -> None:
    frames = rife_arrays["frames"]
    for time in sorted({name.split(".m")[0] for name in rife_arrays if re.fullmatch(r"t0\.\d+\.merged", name)}):
        result = interpolate(golden_net, frames, exact_time(f"{time}."))
        got = {"merged": result.merged, "mask": result.mask}
        got |= {f"flow{i}": flow for i, flow in enumerate(result.flows)}
        for part, value in got.items():
            if (name := f"{time}.{part}") in rife_arrays:
                tolerance = 1e-3 if part.startswith("flow") else 1e-4
                torch.testing.assert_close(value, rife_arrays[name], atol=tolerance, rtol=0, msg=name)


def test_images_that_are_not_square_agree_with_golden(golden_net: IFNet, rife_arrays: dict[str, Tensor]) -> None:
    result = interpolate(golden_net, rife_arrays["nonsquare.frames"], 0.4)
    torch.testing.assert_close(result.merged, rife_arrays["nonsquare.t0.4.merged"], atol=1e-4, rtol=0)


def test_double_precision_agrees_with_golden(golden_state: dict[str, Tensor], rife_arrays: dict[str, Tensor]) -> None:
    net = IFNet("residual").double()
    net.load_state_dict(golden_state)
    merged = interpolate(net, rife_arrays["frames"], 0.5).merged
    assert merged.dtype == torch.float64
    torch.testing.assert_close(merged.float(), rife_arrays["t0.5.merged"], atol=1e-4, rtol=0)
    if "t0.5.merged_f64" in rife_arrays:
        # The original samples on a float32 grid even here; on such a grid the two agree to 3e-15.
        torch.testing.assert_close(merged, rife_arrays["t0.5.merged_f64"], atol=1e-6, rtol=0)


def test_warped_inputs_agree_with_golden(rife_arrays: dict[str, Tensor]) -> None:
    if "t0.5.warp0_level0" not in rife_arrays:
        pytest.skip("the reduced copy leaves the warped images out")
    clip, flow = rife_arrays["frames"] / 255, rife_arrays["t0.5.flow0"]
    for end, channels in ((0, slice(0, 2)), (1, slice(2, 4))):
        warped = warp(clip[-end, None], flow[:, channels])
        torch.testing.assert_close(warped, rife_arrays[f"t0.5.warp{end}_level0"], atol=1e-4, rtol=0)


def test_warp_moves_whole_pixels_and_repeats_the_border() -> None:
    image = torch.arange(12.0).view(1, 1, 3, 4)
    flow = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1).expand(1, 2, 3, 4)
    expected = torch.tensor([9.0, 10.0, 11.0, 11.0]).expand(1, 1, 3, 4)
    torch.testing.assert_close(warp(image, flow), expected)


@pytest.mark.parametrize("layout", ["residual", "prelu"])
def test_every_sample_has_its_own_time(layout: Layout) -> None:
    torch.manual_seed(0)
    net = IFNet(layout).requires_grad_(False)
    first, last = images(2, 32, 64, 5).repeat(2, 1, 1, 1).chunk(2)
    times = torch.tensor([0.2, 0.7])
    together = net(first, last, times).merged
    for i in range(2):
        alone = net(first[i : i + 1], last[i : i + 1], times[i : i + 1]).merged
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=0)
    assert not torch.allclose(net(first, last, 1 - times).merged, together)


@pytest.mark.parametrize("scale", [0.25, 0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("layout", ["residual", "prelu"])
def test_every_scale_keeps_the_image_size(layout: Layout, scale: float) -> None:
    side = side_multiple(scale)
    clip = images(2, side, 2 * side, 1)
    with torch.no_grad():
        result = IFNet(layout)(clip[:1], clip[1:], torch.tensor([0.5]), scale)
    assert result.merged.shape == (1, 3, side, 2 * side)
    assert [flow.shape[1] for flow in result.flows] == [4] * 4


def test_scale_two_estimates_flow_as_on_images_of_twice_the_size(golden_net: IFNet) -> None:
    clip = images(2, 64, 64, 3)
    larger = torch.nn.functional.interpolate(clip, scale_factor=2, mode="bilinear")
    time = torch.tensor([0.5])
    coarse = golden_net(clip[:1], clip[1:], time, scale=2.0).flows[0]
    reference = golden_net(larger[:1], larger[1:], time).flows[0]
    # The first block sees nearly the same picture in both, and flow in pixels is half as long in the smaller images.
    halved = torch.nn.functional.interpolate(reference, scale_factor=0.5, mode="bilinear") / 2
    assert (coarse - halved).abs().mean() < 0.1 * halved.abs().mean()
