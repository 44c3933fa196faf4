"""Networks of the published layouts are built of their weights, and wrong weights are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from consistent4d_ns.errors import InputError
from consistent4d_ns.evaluation.backbones import build_clip, build_i3d, build_lpips, features, load_backbones
from consistent4d_ns.evaluation.i3d import IMAGE_SIZE, SHORTEST
from consistent4d_ns.evaluation.images import Picture, as_tensor
from consistent4d_ns.evaluation.weights import weight_file
from tests.support.metric_weights import CLASSES, random_vgg16, small_clip, small_i3d, store_small_networks


def noise(seed: int, size: int = 64) -> Picture:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def test_clip_score():
    score = build_clip(small_clip())
    assert score(noise(0), noise(0)) == pytest.approx(1.0, abs=1e-6)
    assert score(noise(0), noise(1)) < 0.9999
    assert score.network.config.num_hidden_layers == 2


@pytest.mark.slow
def test_lpips_is_that_of_torchmetrics(monkeypatch: pytest.MonkeyPatch):
    """Its public function, which would download VGG16, is given the same one."""
    import torchvision
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    weights = random_vgg16()
    vgg16 = torchvision.models.vgg16(weights=None)
    vgg16.features.load_state_dict({name.removeprefix("features."): value for name, value in weights.items()})
    monkeypatch.setattr(torchvision.models, "vgg16", lambda weights: vgg16)
    theirs = LearnedPerceptualImagePatchSimilarity(net_type="vgg")
    lpips = build_lpips(weights)
    one, other = (as_tensor(noise(seed)) / 127.5 - 1 for seed in range(2))
    assert lpips(noise(0), noise(1)) == pytest.approx(float(theirs(one, other)), rel=1e-5)
    assert lpips(noise(0), noise(1)) > 0.01
    assert lpips(noise(0), noise(0)) == 0.0


def test_i3d():
    clip = torch.rand(3, SHORTEST, IMAGE_SIZE, IMAGE_SIZE)
    logits = features(build_i3d(small_i3d()), clip)
    assert logits.shape == (1, CLASSES)
    assert logits.isfinite().all()


@pytest.mark.parametrize(
    ("build", "tensors", "said"),
    [
        (build_clip, {"a": torch.zeros(2)}, "those of ViT-B/32 are needed"),
        (build_clip, small_clip() | {"visual_projection.weight": torch.zeros(16, 3)}, "size mismatch"),
        (build_lpips, {}, "those of torchvision are needed"),
        (build_i3d, {}, "those of i3d_pretrained_400.pt are needed"),
        (build_i3d, small_i3d() | {"Mixed_4b.b0.conv3d.weight": torch.zeros(2, 9, 1, 1, 1)}, "do not fit together"),
    ],
)
def test_weights_of_other_networks(build, tensors: dict[str, Tensor], said: str):
    with pytest.raises(InputError, match=said) as caught:
        build(tensors)
    assert "\n" not in str(caught.value)


def test_what_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    store_small_networks(tmp_path)
    weight_file("i3d").write_bytes(b"x")
    backbones, absent = load_backbones(["clip", "lpips", "i3d"], "cpu")
    assert backbones.clip is not None
    assert backbones.lpips is None
    assert backbones.i3d is None
    assert absent[0].startswith("the weights for lpips are not at")
    assert absent[1].startswith("the weights for i3d at")
    assert all("`consistent4d weights metrics`" in line for line in absent)
