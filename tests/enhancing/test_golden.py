"""The enhancer's networks, losses and learning rates against the numbers of the original."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from consistent4d_ns.enhancing.networks import Discriminator, Generator, encoding_frequencies, position_encoding
from consistent4d_ns.enhancing.training import discriminator_loss, generator_losses, learning_rate
from tests.support.hash_fill import hash_u, images

CHANNELS = 16
GENERATOR = {
    "model.model.0": "down.0",
    "model.model.1.model.1": "down.1.1",
    "model.model.1.model.2": "down.1.2",
    "model.model.1.model.3.model.1": "down.2.1",
    "model.model.1.model.3.model.2": "down.2.2",
    "model.model.1.model.3.model.3.model.1": "down.3.1",
    "model.model.1.model.3.model.3.model.2.positional_encoding.penc.inv_freq": "attention.frequencies",
    "model.model.1.model.3.model.3.model.2.multihead_attention": "attention.attention",
    "model.model.1.model.3.model.3.model.4": "up.3.1",
    "model.model.1.model.3.model.3.model.5": "up.3.2",
    "model.model.1.model.3.model.5": "up.2.1",
    "model.model.1.model.3.model.6": "up.2.2",
    "model.model.1.model.5": "up.1.1",
    "model.model.1.model.6": "up.1.2",
    "model.model.3": "up.0.1",
}
"""Our names of the original's layers."""


def value(rule: str, u: Tensor) -> Tensor:
    """A parameter by its rule in the description."""
    factors = {"1+0.1u": (1.0, 0.1), "0.05u": (0.0, 0.05)}
    if rule in factors:
        offset, scale = factors[rule]
        return offset + scale * u
    top, bottom = map(float, rule.removeprefix("u*sqrt(").removesuffix(")").split("/"))
    return u * (top / bottom) ** 0.5


def fill(network: nn.Module, described: list[dict[str, Any]], names: dict[str, str]) -> None:
    """Give a network the described parameters; it must have these and no others."""
    tensors = {}
    for entry in described:
        layer = max((name for name in names if entry["name"].startswith(f"{name}.") or entry["name"] == name), key=len)
        u = torch.from_numpy(hash_u(int(torch.tensor(entry["shape"]).prod()), entry["salt"])).view(entry["shape"])
        tensors[names[layer] + entry["name"].removeprefix(layer)] = value(entry["value"], u).float()
    counters = {name: old for name, old in network.state_dict().items() if name.endswith("num_batches_tracked")}
    if "attention.frequencies" in tensors:  # a buffer that is computed, and filled in the recording
        network.get_submodule("attention").frequencies = tensors.pop("attention.frequencies")
    network.load_state_dict(tensors | counters)


@pytest.fixture(scope="module")
def recorded(golden: Callable[[str], dict[str, Tensor]]) -> dict[str, Tensor]:
    return golden("enhancer.safetensors")


@pytest.fixture
def generator(golden_json: Callable[[str], Any]) -> Generator:
    network = Generator(CHANNELS)
    fill(network, golden_json("enhancer.json")["parameters_G"], GENERATOR)
    return network


@pytest.fixture
def discriminator(golden_json: Callable[[str], Any]) -> Discriminator:
    network = Discriminator(CHANNELS)
    fill(network, golden_json("enhancer.json")["parameters_D"], {"model": "layers"})
    return network


@pytest.fixture(scope="module")
def rendered() -> Tensor:
    return images(5, 64, 64, 8800) * 2 - 1


@pytest.fixture(scope="module")
def truth() -> Tensor:
    return images(5, 64, 64, 8900) * 2 - 1


def test_generator(generator: Generator, recorded: dict[str, Tensor], rendered: Tensor):
    torch.testing.assert_close(generator(rendered), recorded["fake_train"], atol=2e-5, rtol=0)


def test_generator_in_evaluation_mode(generator: Generator, recorded: dict[str, Tensor], rendered: Tensor):
    torch.testing.assert_close(generator.eval()(rendered), recorded["fake_eval"], atol=2e-5, rtol=0)


def test_attention(generator: Generator, recorded: dict[str, Tensor]):
    found = generator.attention(recorded["attn_in"])
    torch.testing.assert_close(found, recorded["attn_out"], atol=1e-5, rtol=0)


def test_position_encoding(recorded: dict[str, Tensor]):
    encoding = position_encoding(encoding_frequencies(64), 4, 8)
    torch.testing.assert_close(encoding[None], recorded["posenc_64ch_4x8"], atol=1e-6, rtol=0)


def test_losses_and_gradient(
    generator: Generator, discriminator: Discriminator, recorded: dict[str, Tensor], rendered: Tensor, truth: Tensor
):
    enhanced = generator(rendered)
    fake, real = discriminator(rendered, enhanced), discriminator(rendered, truth)
    torch.testing.assert_close(fake, recorded["D_fake_logits"], atol=1e-4, rtol=0)
    torch.testing.assert_close(real, recorded["D_real_logits"], atol=1e-4, rtol=0)
    adversarial, difference = generator_losses(fake, enhanced, truth)
    found = torch.stack((discriminator_loss(real, fake), adversarial, difference))
    torch.testing.assert_close(found, torch.cat([recorded[f"loss_{name}"] for name in ("D", "G_GAN", "G_L1")]))
    (adversarial + difference).backward()
    gradient = generator.attention.attention.in_proj_weight.grad
    assert gradient is not None
    wanted = recorded["grad_in_proj_weight"]
    # Rounding, which changes with the number of threads, turns the signs of a few differences and of ReLUs.
    assert float((gradient - wanted).norm() / wanted.norm()) < 1e-2


def test_learning_rates(recorded: dict[str, Tensor]):
    rates = torch.tensor([learning_rate(epoch, 200) for epoch in range(200)], dtype=torch.float64)
    torch.testing.assert_close(rates, recorded["lr_per_epoch"], atol=1e-12, rtol=0)
