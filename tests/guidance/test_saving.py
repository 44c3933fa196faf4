"""What is saved is what was there, in half precision, and can be used by anyone who reads diffusers folders."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from consistent4d_ns.errors import InputError
from consistent4d_ns.guidance.base import draw
from consistent4d_ns.guidance.checksums import verify_checksums
from consistent4d_ns.guidance.config import GuidanceConfig
from consistent4d_ns.guidance.diffusers_layout import load_folder
from consistent4d_ns.guidance.diffusion import alphas_cumprod
from consistent4d_ns.guidance.networks import Zero123Networks
from consistent4d_ns.guidance.random_prior import random_networks
from consistent4d_ns.guidance.saving import save_folder
from consistent4d_ns.guidance.zero123 import Zero123Guidance
from tests.support.agreement import assert_agrees

NETWORKS = ("unet", "vae", "image_encoder", "projection")
POSES = torch.tensor([[0.1, 0.5, 0.8, 0.0], [0.0, -0.7, 0.7, 0.0]])


@pytest.fixture(scope="module")
def networks() -> Zero123Networks:
    """A prior in float32 of which every weight is a half-precision number."""
    networks = random_networks("small", "cpu", seed=0)
    for part in NETWORKS:
        for parameter in getattr(networks, part).parameters():
            parameter.data = parameter.data.half().float()
    return replace(networks, clip_mean=(0.1, 0.2, 0.3), clip_std=(0.4, 0.5, 0.6))


@pytest.fixture(scope="module")
def folder(networks: Zero123Networks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "prior"
    save_folder(networks, folder)
    return folder


def weights(networks: Zero123Networks) -> dict[str, Tensor]:
    parts: dict[str, nn.Module] = {part: getattr(networks, part) for part in NETWORKS}
    return {f"{part}.{name}": value for part, network in parts.items() for name, value in network.state_dict().items()}


def test_weights_and_settings_come_back(networks: Zero123Networks, folder: Path) -> None:
    found = load_folder(folder)
    ours, theirs = weights(found), weights(networks)
    assert ours.keys() == theirs.keys()
    assert {value.dtype for value in ours.values()} == {torch.float16}
    assert all(torch.equal(ours[name], theirs[name].half()) for name in theirs)
    for name in ("image_tokens", "clip_mean", "clip_std", "latent_shape", "image_size", "clip_size", "scaling_factor"):
        assert getattr(found, name) == getattr(networks, name), name
    assert torch.equal(found.alphas, networks.alphas)
    for part in ("unet", "vae"):
        assert getattr(found, part).to_json_string() == getattr(networks, part).to_json_string()


def test_losses_and_samples_stay_the_same(networks: Zero123Networks, folder: Path) -> None:
    images = torch.rand(2, 2, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    frames = torch.tensor([0, 1])
    losses, samples = [], []
    for prior in (networks, load_folder(folder)):
        guidance = Zero123Guidance(deepcopy(prior), GuidanceConfig(previews=True), "cpu")
        guidance.prepare(images[0])
        draws = draw(guidance, 2, 2, (200, 800), torch.Generator().manual_seed(2))
        losses.append(guidance.loss(images, POSES, frames, draws, 5.0))
        generator = torch.Generator().manual_seed(3)
        samples.append(guidance.sample(POSES, frames, scale=3.0, generator=generator, steps=3))
    assert_agrees("loss", losses[1], losses[0], 1e-5, relative=True)
    assert_agrees("sample", samples[1], samples[0], 1e-5)


def test_saving_leaves_the_networks_as_they_are(networks: Zero123Networks, folder: Path) -> None:
    assert {value.dtype for value in weights(networks).values()} == {torch.float32}


def test_a_folder_holds_no_pickles_and_everything_that_diffusers_lists(folder: Path) -> None:
    suffixes = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert suffixes == {".safetensors", ".json", ""}
    verify_checksums(folder)
    scheduler: Any = DDIMScheduler.from_pretrained(folder / "scheduler")
    assert_agrees("schedule", scheduler.alphas_cumprod, alphas_cumprod().float(), 1e-6)
    scheduler.set_timesteps(50)
    assert scheduler.timesteps[[0, -1]].tolist() == [981, 1]


def test_what_is_there_is_kept_unless_told_otherwise(networks: Zero123Networks, tmp_path: Path) -> None:
    (tmp_path / "MODEL_CARD.md").write_text("mine")
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "diffusion_pytorch_model.ema.safetensors").write_bytes(b"former")
    with pytest.raises(InputError, match=f"{tmp_path}: not an empty folder"):
        save_folder(networks, tmp_path)
    assert not (tmp_path / "vae").exists()
    save_folder(networks, tmp_path, overwrite=True)
    assert load_folder(tmp_path).image_tokens == networks.image_tokens
    assert (tmp_path / "MODEL_CARD.md").read_text() == "mine"


def test_a_file_is_no_folder(networks: Zero123Networks, tmp_path: Path) -> None:
    path = tmp_path / "prior"
    path.write_text("mine")
    with pytest.raises(InputError, match="not an empty folder"):
        save_folder(networks, path, overwrite=True)
    assert path.read_text() == "mine"


def test_another_noise_schedule_is_refused(networks: Zero123Networks, tmp_path: Path) -> None:
    other = replace(networks, alphas=alphas_cumprod(beta_schedule="linear"))
    with pytest.raises(InputError, match="noise schedule is not Zero123's"):
        save_folder(other, tmp_path / "prior")
    assert not (tmp_path / "prior").exists()
