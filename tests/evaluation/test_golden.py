"""The original's protocol, against numbers that its evaluation scripts computed (golden/metrics*)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from consistent4d_ns.data.stills import read_plain
from consistent4d_ns.evaluation import scores
from consistent4d_ns.evaluation.frechet import frechet_distance, one_clip_distance
from consistent4d_ns.evaluation.i3d import I3D, original_average, published_average
from consistent4d_ns.evaluation.images import CLIP_SIDE, SIDE, Picture, as_tensor, clip_input, i3d_input, resized
from tests.conftest import golden_path
from tests.support.hash_fill import hash_u

Golden = Callable[[str], dict[str, Tensor]]


def picture(name: str) -> Picture:
    return read_plain(golden_path(f"metric_images/{name}.png"))


@pytest.mark.parametrize("pair", [0, 1, 2])
def test_psnr_and_ssim(golden_json: Callable[[str], Any], pair: int):
    """The third true image does not reach from 0 to 255, which is where the protocols differ.

    The recorded SSIM is of single precision: up to 4e-4 from that of double precision.
    """
    expected = golden_json("metrics_values.json")[f"pair{pair}"]
    predicted, truth = (as_tensor(resized(picture(f"{side}_{pair}"), SIDE)) for side in ("pred", "gt"))
    assert scores.original_psnr(predicted, truth) == pytest.approx(expected["psnr"], abs=2e-4)
    assert scores.original_ssim(predicted, truth) == pytest.approx(expected["ssim"], abs=5e-4)
    low, high = expected["gt_range"]
    assert scores.value_range(truth) == high - low
    missing = 20 * np.log10(255 / (high - low))
    assert scores.psnr(predicted, truth) == pytest.approx(expected["psnr"] + missing, abs=2e-4)


def test_what_networks_see(golden: Golden):
    recorded = golden("metrics.safetensors")
    image = resized(picture("pred_0"), SIDE)
    theirs = recorded["resized512_pred0_stride8"]
    ours = as_tensor(image)[..., ::8, ::8].byte()
    assert torch.equal(ours.reshape(theirs.shape), theirs)
    seen = clip_input(image)
    assert seen.shape[-2:] == (CLIP_SIDE, CLIP_SIDE)
    assert (seen[..., ::4, ::4] - recorded["clip_pixel_values_pred0_stride4"]).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["multi_20x6", "multi_50x12", "rankdef_5x12"])
def test_frechet_distance_of_sets(golden: Golden, golden_json: Callable[[str], Any], name: str):
    """Also with fewer clips than features."""
    recorded = golden("metrics.safetensors")
    ours = frechet_distance(recorded[f"frechet.{name}.pred"].numpy(), recorded[f"frechet.{name}.gt"].numpy())
    assert ours == pytest.approx(golden_json("metrics_values.json")[f"frechet_{name}"], rel=1e-5)


def test_frechet_distance_of_single_clips(golden: Golden, golden_json: Callable[[str], Any]):
    recorded, values = golden("metrics.safetensors"), golden_json("metrics_values.json")
    one, other = (recorded[f"frechet.single_1x400.{side}"][0].numpy() for side in ("pred", "gt"))
    assert one_clip_distance(one, other) == pytest.approx(values["frechet_single_1x400"], rel=1e-6)
    one, other = (recorded[f"i3d.logits_frames{part}"][0].numpy() for part in ("0_15", "16_31"))
    assert one_clip_distance(one, other) == pytest.approx(values["fvd_frames0_15_vs_16_31"], rel=1e-4)


def made_up(parameter: dict[str, Any]) -> Tensor:
    """A parameter by its recorded rule."""
    u = hash_u(int(np.prod(parameter["shape"])), parameter["salt"])
    rules = {"0.05u": 0.05 * u, "0.1u": 0.1 * u, "1+0.1u": 1 + 0.1 * u, "1+0.3u": 1 + 0.3 * u}
    rule = parameter["value"]
    values = rules[rule] if rule in rules else u * np.sqrt(6 / int(rule.partition("/")[2][:-1]))
    return torch.from_numpy(values.astype(np.float32)).view(parameter["shape"])


@pytest.mark.slow
def test_i3d(golden: Golden, golden_json: Callable[[str], Any]):
    """Logits of clips of 16 and of 32 frames; only of the latter does the original leave out time steps."""
    recorded = golden("metrics.safetensors")
    parameters = golden_json("metrics_values.json")["i3d_parameters"]
    i3d = I3D({parameter["name"]: made_up(parameter) for parameter in parameters})
    frames = [np.asarray(Image.open(golden_path(f"frames32/{i}.png")).convert("RGB")) for i in range(32)]
    clip = torch.stack([i3d_input(frame) for frame in frames], dim=1)[None]
    assert torch.equal(clip[:, :, :16, ::16, ::16], recorded["i3d.video_stride16"])
    short, long = i3d(clip[:, :, :16]), i3d(clip)
    assert (short.shape[1], long.shape[1]) == (1, 3)
    assert (original_average(short) - recorded["i3d.logits_frames0_15"]).abs().max() < 1e-4
    assert (original_average(long) - recorded["i3d.logits_frames0_31"]).abs().max() < 1e-4
    assert (published_average(long) - recorded["i3d.logits_frames0_31"]).abs().max() > 0.1
