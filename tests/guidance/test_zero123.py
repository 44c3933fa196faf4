"""Invariants of the Zero123 guidance, with an untrained prior whose sizes all differ from the original's."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from consistent4d_ns.device.cuda_graphs import Graphed
from consistent4d_ns.errors import InputError
from consistent4d_ns.guidance import latent
from consistent4d_ns.guidance.base import GuidanceDraws, Start, draw
from consistent4d_ns.guidance.conditioning import clip_input
from consistent4d_ns.guidance.config import GuidanceConfig
from consistent4d_ns.guidance.fused import runs_fused
from consistent4d_ns.guidance.latent import multiplies_bf16, network_dtype
from consistent4d_ns.guidance.networks import Zero123Networks
from consistent4d_ns.guidance.random_prior import random_networks
from consistent4d_ns.guidance.zero123 import Zero123Guidance
from tests.device.test_cuda_graphs import Recomputing
from tests.support.agreement import assert_agrees

LEVELS, VIEWS = 2, 3
FRAMES = torch.tensor([2, 0, 2])
POSES = torch.tensor([[0.1, 0.5, 0.8, 0.0], [-0.3, -1.0, 0.0, 0.0], [0.0, 0.0, -1.0, 0.2]])


@pytest.fixture(scope="module")
def networks() -> Zero123Networks:
    return random_networks("small", "cpu", seed=0)


@pytest.fixture(scope="module")
def frames() -> Tensor:
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def rendered() -> Tensor:
    return torch.rand(LEVELS, VIEWS, 3, 48, 48, generator=torch.Generator().manual_seed(2))


def prepared(networks: Zero123Networks, frames: Tensor, elevation: float = 0.0, **settings: Any) -> Zero123Guidance:
    """A guidance of its own, conditioned on `frames`."""
    guidance = Zero123Guidance(deepcopy(networks), GuidanceConfig(**settings), "cpu", elevation)
    guidance.prepare(frames)
    return guidance


@pytest.fixture(scope="module")
def guidance(networks: Zero123Networks, frames: Tensor) -> Zero123Guidance:
    return prepared(networks, frames, previews=True)


def draws_for(guidance: Zero123Guidance, levels: int = LEVELS) -> GuidanceDraws:
    return draw(guidance, levels, VIEWS, (200, 800), torch.Generator().manual_seed(3))


def gradient_of(guidance: Zero123Guidance, rendered: Tensor, factor: float = 1.0) -> Tensor:
    """d (factor * sum of losses) / d images."""
    images = rendered.clone().requires_grad_()
    loss = guidance.loss(images, POSES, FRAMES, draws_for(guidance, len(images)), 5.0)
    return torch.autograd.grad((factor * loss).sum(), images)[0]


def test_sizes_follow_from_the_networks(guidance: Zero123Guidance) -> None:
    assert guidance.image_size == 64
    assert guidance.latent_shape == (4, 16, 16)
    assert guidance.conditions.tokens.shape == (3, 17, 24)
    assert guidance.conditions.latents.shape == (3, 4, 16, 16)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_overflowing_predictions_teach_nothing_and_are_counted(
    networks: Zero123Networks, frames: Tensor, rendered: Tensor, value: float
) -> None:
    """As a half-precision UNet yields them: one channel of every prediction."""
    broken = deepcopy(networks)
    bias: Any = broken.unet.conv_out.bias
    with torch.no_grad():
        bias[0] = value
    guidance = prepared(broken, frames)
    loss = guidance.loss(rendered, POSES, FRAMES, draws_for(guidance), 5.0)
    assert torch.isfinite(loss).all()
    assert (loss < 1e6).all()
    channel = LEVELS * VIEWS * guidance.latent_shape[1] * guidance.latent_shape[2]
    assert int(guidance.undefined_predictions) == channel
    assert torch.isfinite(gradient_of(guidance, rendered)).all()
    assert int(guidance.undefined_predictions) == 2 * channel, "of all steps together"


def test_guidance_is_frozen_and_stays_out_of_checkpoints(guidance: Zero123Guidance) -> None:
    owner = nn.Module()
    setattr(owner, "guidance", guidance)  # noqa: B010, type checkers want modules and tensors only
    assert not owner.state_dict()
    parts = vars(guidance._networks).values()
    assert not any(p.requires_grad for part in parts if isinstance(part, nn.Module) for p in part.parameters())


def test_draws_are_reproducible_and_cover_the_range(guidance: Zero123Guidance) -> None:
    first, second = (draw(guidance, 64, VIEWS, (5, 7), torch.Generator().manual_seed(9)) for _ in range(2))
    for name in ("posterior_noise", "timesteps", "noise"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    assert first.timesteps.unique().tolist() == [5, 6, 7]
    assert first.noise.shape == (64, VIEWS, *guidance.latent_shape)
    assert not torch.equal(first.noise, first.posterior_noise)


def test_single_token_is_the_image_embedding(networks: Zero123Networks, frames: Tensor) -> None:
    single = Zero123Guidance(replace(deepcopy(networks), image_tokens=1), GuidanceConfig(previews=True), "cpu")
    single.prepare(frames)
    embedding = networks.image_encoder(clip_input(frames, single._networks)).image_embeds
    assert_agrees("embedding", single.conditions.tokens[:, 0], embedding, 1e-5)


def test_camera_joins_every_token(guidance: Zero123Guidance) -> None:
    tokens = guidance.conditions.tokens[FRAMES]
    context = guidance.context(tokens, POSES)
    for k in range(tokens.shape[1]):
        joined = torch.cat((tokens[:, k], POSES), dim=-1)
        assert_agrees("context", context[:, k], guidance._networks.projection(joined), 1e-5)


def test_stable_zero123_is_told_the_polar_angle(networks: Zero123Networks, frames: Tensor) -> None:
    plain = prepared(networks, frames, elevation=20.0)
    stable = prepared(networks, frames, elevation=20.0, prior="kxic/stable-zero123")
    told = POSES.clone()
    told[:, 3] = math.radians(70.0)
    tokens = plain.conditions.tokens[FRAMES]
    assert_agrees("context", stable.context(tokens, POSES), plain.context(tokens, told), 1e-6)


def test_conditions_do_not_depend_on_the_batch(networks: Zero123Networks, frames: Tensor) -> None:
    one, all_ = (prepared(networks, frames, condition_batch=n).conditions for n in (1, 8))
    assert_agrees("tokens", one.tokens, all_.tokens, 1e-5)
    assert_agrees("latents", one.latents, all_.latents, 1e-5)


def test_conditioning_tries_no_algorithms(
    networks: Zero123Networks, frames: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    tries: list[bool] = []
    watched: Any = deepcopy(networks)
    watched.vae.encoder.register_forward_hook(lambda *_: tries.append(torch.backends.cudnn.benchmark))
    prepared(watched, frames)
    assert tries == [False]
    assert torch.backends.cudnn.benchmark


def test_larger_frames_are_averaged_down(networks: Zero123Networks, frames: Tensor, guidance: Zero123Guidance) -> None:
    large = prepared(networks, frames.repeat_interleave(2, -1).repeat_interleave(2, -2)).conditions
    assert_agrees("tokens", large.tokens, guidance.conditions.tokens, 1e-5)


def test_levels_are_independent(guidance: Zero123Guidance, rendered: Tensor) -> None:
    together = draws_for(guidance)
    losses = guidance.loss(rendered, POSES, FRAMES, together, 5.0)
    for level in range(LEVELS):
        own = GuidanceDraws(*(getattr(together, name)[level : level + 1] for name in GuidanceDraws.__annotations__))
        alone = guidance.loss(rendered[level : level + 1], POSES, FRAMES, own, 5.0)
        assert_agrees("loss", alone, losses[level : level + 1], 1e-4, relative=True)


def test_a_loss_moves_its_own_level_only(guidance: Zero123Guidance, rendered: Tensor) -> None:
    images = rendered.clone().requires_grad_()
    losses = guidance.loss(images, POSES, FRAMES, draws_for(guidance), 5.0)
    (gradient,) = torch.autograd.grad(losses[1], images)
    assert not gradient[0].any()
    assert gradient[1].any()


def test_gradient_is_that_of_the_definition(guidance: Zero123Guidance, rendered: Tensor) -> None:
    """Straight through autograd: encode, then 0.5 sum((z - stop(z - g))^2) / views."""
    images, draws = rendered.clone().requires_grad_(), draws_for(guidance)
    latents = guidance.encode(images, draws.posterior_noise)
    _, gradient, _ = guidance.distil_latents(latents, guidance.view_conditions(POSES, FRAMES), draws, 5.0)
    target = (latents - gradient * VIEWS).detach()
    loss = 0.5 * (latents - target).square().sum() / VIEWS
    (expected,) = torch.autograd.grad(loss, images)
    assert_agrees("gradient", gradient_of(guidance, rendered), expected, 1e-5, relative=True)
    total = guidance.loss(rendered, POSES, FRAMES, draws, 5.0).sum()
    assert_agrees("loss", total, loss.detach(), 1e-5, relative=True)


@pytest.fixture
def unet_calls(guidance: Zero123Guidance, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor]]:
    """Input and context of each call of the UNet."""
    calls: list[tuple[Tensor, Tensor]] = []
    unet: Any = guidance._networks.unet
    forward = unet.forward

    def recording(sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Any:
        calls.append((sample, encoder_hidden_states))
        return forward(sample, timestep, encoder_hidden_states=encoder_hidden_states)

    monkeypatch.setattr(unet, "forward", recording)
    return calls


def test_one_unet_call_with_an_empty_first_half(
    guidance: Zero123Guidance, rendered: Tensor, unet_calls: list[tuple[Tensor, Tensor]]
) -> None:
    guidance.loss(rendered, POSES, FRAMES, draws_for(guidance), 5.0)
    ((sample, context),) = unet_calls
    half = LEVELS * VIEWS
    assert len(sample) == len(context) == 2 * half
    assert not sample[:half, 4:].any()
    assert not context[:half].any()
    assert torch.equal(sample[:half, :4], sample[half:, :4])
    assert torch.equal(sample[half:, 4:], guidance.conditions.latents[FRAMES].repeat(LEVELS, 1, 1, 1))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_survives_loss_scaling(
    networks: Zero123Networks, frames: Tensor, rendered: Tensor, guidance: Zero123Guidance, precision: str
) -> None:
    exact = gradient_of(guidance, rendered[:1])
    half = prepared(networks, frames, precision=precision)
    for factor in (65536.0, 2.0**-20):
        gradient = gradient_of(half, rendered[:1], factor) / factor
        assert torch.isfinite(gradient).all()
        assert (gradient - exact).norm() / exact.norm() < 0.05
    assert half.conditions.tokens.dtype == torch.float32
    assert_agrees("conditions", half.conditions.latents, guidance.conditions.latents, 1e-5)


def test_autocast_around_changes_nothing(guidance: Zero123Guidance, rendered: Tensor) -> None:
    outside = gradient_of(guidance, rendered)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(gradient_of(guidance, rendered), outside)


def test_guidance_scale_1_ignores_the_unconditional_half(guidance: Zero123Guidance) -> None:
    draws, conditions = draws_for(guidance), guidance.view_conditions(POSES, FRAMES)
    uncond, cond, guided = (
        guidance.predict_noise(draws.noise, draws.timesteps, conditions, s) for s in (0.0, 1.0, 5.0)
    )
    assert_agrees("guided", guided, uncond + 5 * (cond - uncond), 1e-4)


def test_guidance_scale_1_is_the_conditional_half_alone(
    guidance: Zero123Guidance, rendered: Tensor, unet_calls: list[tuple[Tensor, Tensor]]
) -> None:
    """With the same result as of both halves, which a scale that is known on the device alone needs."""
    draws, conditions = draws_for(guidance), guidance.view_conditions(POSES, FRAMES)
    inputs = (draws.noise, draws.timesteps, conditions)
    both, alone = guidance.predict_noise(*inputs, torch.tensor(1.0)), guidance.predict_noise(*inputs, 1.0)
    assert_agrees("guided", alone, both, 1e-5)
    guidance.loss(rendered, POSES, FRAMES, draws, 1.0)
    generator = torch.Generator().manual_seed(4)
    guidance.sample(POSES, FRAMES, scale=1.0, generator=generator, steps=2)
    guidance.sample(POSES, FRAMES, scale=2.0, generator=generator, steps=2)
    half = LEVELS * VIEWS
    assert [len(sample) for sample, _ in unet_calls] == [2 * half, half, half, VIEWS, VIEWS, 2 * VIEWS, 2 * VIEWS]
    sample, context = unet_calls[2]
    assert torch.equal(sample[:, 4:], guidance.conditions.latents[FRAMES].repeat(LEVELS, 1, 1, 1))
    assert torch.equal(context, conditions.tokens.repeat(LEVELS, 1, 1))


@pytest.mark.parametrize("graphs", [False, True])
def test_the_scale_may_change_during_training(
    networks: Zero123Networks, frames: Tensor, rendered: Tensor, graphs: bool
) -> None:
    """Recorded once at 1 and once for all other scales; losses go on meeting their limit at 1 from both sides."""
    guidance, recorders = prepared(networks, frames), []
    draws = draws_for(guidance)

    def recorder() -> Recomputing:
        recorders.append(Recomputing())
        return recorders[-1]

    guidance._graphed_distil = Graphed(guidance._distil, enabled=graphs, recorder=recorder)
    scales = (5.0, 1.0, 0.9999, 1.0001, 1.0, 5.0)
    losses = [guidance.loss(rendered, POSES, FRAMES, draws, scale) for scale in scales]
    for around in losses[2:4]:
        assert_agrees("loss", around, losses[1], 1e-3, relative=True)
    assert torch.equal(losses[1], losses[4])
    assert torch.equal(losses[0], losses[5])
    assert not torch.equal(losses[0], losses[1])
    assert [len(recorder.recorded) for recorder in recorders] == ([2] if graphs else [])


def test_samples_are_images_and_reproducible(guidance: Zero123Guidance) -> None:
    first, second = (
        guidance.sample(POSES, FRAMES, scale=3.0, generator=torch.Generator().manual_seed(4), steps=3) for _ in range(2)
    )
    assert first.shape == (VIEWS, 3, 64, 64)
    assert torch.equal(first, second)
    assert first.min() >= 0
    assert first.max() <= 1


def test_cold_samples_do_not_depend_on_the_noise(guidance: Zero123Guidance) -> None:
    first, second = (
        guidance.sample(
            POSES, FRAMES, scale=1.0, generator=torch.Generator().manual_seed(seed), steps=3, temperature=0.0
        )
        for seed in range(2)
    )
    assert torch.equal(first, second)


def test_samples_start_from_images(guidance: Zero123Guidance, rendered: Tensor) -> None:
    """The more noise, the less is left of them."""

    def sampled(images: Tensor | None, strength: float) -> Tensor:
        generator = torch.Generator().manual_seed(4)
        return guidance.sample(POSES, FRAMES, scale=1.5, generator=generator, steps=1, start=Start(images, strength))

    first, other = rendered
    zeros = torch.zeros(1, VIEWS, *guidance.latent_shape)
    kept = guidance.decode(guidance.encode(first[None], zeros)[0])
    distances = [float((sampled(first, strength) - kept).abs().mean()) for strength in (0.002, 0.2, 0.8)]
    assert distances == sorted(distances)
    assert distances[0] < 0.6 * distances[-1]
    assert torch.equal(sampled(first, 0.8), sampled(first, 0.8))
    assert not torch.equal(sampled(first, 0.8), sampled(other, 0.8))
    assert sampled(None, 1.0).shape == kept.shape


def test_noise_levels_that_cannot_be_started_from_are_named(guidance: Zero123Guidance) -> None:
    for strength, words in ((0.0, "noise level 0.0"), (1.1, "noise level 1.1"), (0.01, "50 steps")):
        with pytest.raises(InputError, match=words):
            guidance.sample(POSES, FRAMES, scale=1.0, generator=torch.Generator(), start=Start(None, strength))


def test_what_only_previews_need_is_freed(networks: Zero123Networks, frames: Tensor, rendered: Tensor) -> None:
    guidance = prepared(networks, frames)
    assert not hasattr(guidance._networks, "image_encoder")
    assert not any(name.startswith("decoder") for name in guidance._networks.vae.state_dict())
    assert torch.isfinite(guidance.loss(rendered, POSES, FRAMES, draws_for(guidance), 5.0)).all()
    with pytest.raises(InputError, match=r"not in memory any more: --pipeline\.guidance\.previews True keeps it"):
        guidance.sample(POSES, FRAMES, scale=3.0, generator=torch.Generator())


def test_sampling_ends_when_it_is_not_needed_any_more(
    networks: Zero123Networks, frames: Tensor, rendered: Tensor
) -> None:
    guidance = prepared(networks, frames, previews=True)
    before = guidance.loss(rendered, POSES, FRAMES, draws_for(guidance), 5.0)
    guidance.sample(POSES, FRAMES, scale=1.0, generator=torch.Generator(), steps=1)
    guidance.end_sampling()
    guidance.end_sampling()
    assert torch.equal(guidance.loss(rendered, POSES, FRAMES, draws_for(guidance), 5.0), before)
    with pytest.raises(InputError, match="decoder is not in memory any more"):
        guidance.sample(POSES, FRAMES, scale=1.0, generator=torch.Generator(), steps=1)


def test_use_before_preparation_is_refused(networks: Zero123Networks, rendered: Tensor) -> None:
    guidance = Zero123Guidance(deepcopy(networks), GuidanceConfig(), "cpu")
    with pytest.raises(RuntimeError, match="prepare"):
        guidance.view_conditions(POSES, FRAMES)


def test_automatic_precision_follows_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert network_dtype("auto", torch.device("cuda")) == torch.float16
    assert network_dtype("auto", torch.device("cpu")) == torch.float32
    monkeypatch.setattr(latent, "multiplies_bf16", lambda: True)
    assert network_dtype("auto", torch.device("cpu")) == torch.bfloat16
    assert network_dtype("bf16", torch.device("cuda")) == torch.bfloat16


@pytest.mark.parametrize(
    ("capabilities", "fast"),
    [
        ({"amx_bf16": True, "avx512_bf16": True, "cpu_name": "Intel(R) Xeon(R)"}, True),
        ({"amx_bf16": False, "avx512_bf16": True, "cpu_name": "Intel(R) Xeon(R)"}, False),
        ({"amx_bf16": False, "avx512_bf16": True, "cpu_name": "AMD EPYC"}, True),
        ({"amx_bf16": False, "avx512_bf16": False, "cpu_name": "AMD EPYC"}, False),
        ({}, False),
    ],
)
def test_which_cpus_multiply_bfloat16_fast(
    capabilities: dict[str, bool | str], fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert multiplies_bf16() is fast


def test_fused_networks_are_for_cuda() -> None:
    assert not runs_fused("auto", torch.device("cpu"))
    with pytest.raises(InputError, match="needs a CUDA device and Triton; choose auto or torch"):
        runs_fused("fused", torch.device("cpu"))


def test_full_random_networks_have_the_sizes_of_zero123_xl() -> None:
    full = random_networks("full", "meta", seed=0)
    full.check("random prior")
    assert (full.image_size, full.latent_shape, full.scaling_factor) == (256, (4, 32, 32), 0.18215)
    assert sum(p.numel() for p in full.unet.parameters()) == 859_532_484
    assert full.projection.weight.shape == (768, 772)


def test_random_networks_follow_from_the_seed_alone() -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first, second, other = (random_networks("small", "cpu", seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    weights = [dict(n.unet.named_parameters())["conv_in.weight"] for n in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    first.check("random prior")
