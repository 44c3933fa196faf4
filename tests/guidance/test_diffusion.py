"""The pure maths of diffusion against recorded numbers, in double precision."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from consistent4d_ns.errors import InputError
from consistent4d_ns.guidance.diffusion import (
    add_noise,
    alphas_cumprod,
    alphas_from_config,
    count_undefined,
    ddim_schedule,
    ddim_timesteps,
    denoised,
    descent_schedule,
    distillation_loss,
    predicted_clean,
    step_towards,
)
from tests.support.agreement import assert_agrees

Golden = Callable[[str], dict[str, Tensor]]
CONDITIONING = "zero123/conditioning_unet_vae.safetensors"


def test_noise_schedule(golden: Golden) -> None:
    recorded = golden(CONDITIONING)
    alphas = alphas_cumprod()
    assert_agrees("alphas_cumprod", alphas, recorded["sched.alphas_cumprod"], 1e-6)
    betas = 1 - alphas[1:] / alphas[:-1]
    assert_agrees("betas", betas, recorded["sched.betas"][1:], 1e-6)
    noisy = add_noise(recorded["unet.x_t"].double(), recorded["sched.add_noise_noise"], alphas[recorded["unet.t"]])
    assert_agrees("add_noise", noisy, recorded["sched.add_noise_result"], 1e-6, relative=True)


def test_ddim_sampling_step(golden: Golden) -> None:
    recorded = golden(CONDITIONING)
    timesteps = ddim_timesteps(1000, 50)
    assert torch.equal(timesteps, recorded["sched.timesteps50"])
    steps = {t: (kept, next_kept) for t, kept, next_kept in ddim_schedule(alphas_cumprod(), 50)}
    assert list(steps) == timesteps.tolist()
    assert steps[1][1] == pytest.approx(recorded["sched.final_alpha_cumprod"].item(), abs=1e-7)
    kept, next_kept = steps[int(recorded["sched.step_eta0_t"])]
    noisy, predicted = recorded["unet.x_t"][:1].double(), recorded["unet.eps"][:1].double()
    clean = predicted_clean(noisy, predicted, kept)
    previous = step_towards(clean, noisy, kept, next_kept)
    assert_agrees("previous sample", previous, recorded["sched.step_eta0_prev"], 1e-6, relative=True)
    assert_agrees("clean sample", clean, recorded["sched.step_eta0_x0"], 1e-6, relative=True)


def test_steps_of_second_order_are_closer_to_the_solution():
    """Of the probability flow of normally distributed latents: they keep their quantile at every noise level."""
    alphas, spread = alphas_cumprod(), 0.7

    def deviation(kept: Tensor) -> Tensor:
        return (kept * spread**2 + 1 - kept).sqrt()

    def predict(noisy: Tensor, timestep: int) -> Tensor:
        kept = alphas[timestep]
        return (1 - kept).sqrt() * noisy / deviation(kept) ** 2

    quantiles = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None, None, None]
    errors = {}
    for steps in (8, 16):
        schedule = list(descent_schedule(alphas, steps, 0.8))
        noisy = quantiles * deviation(schedule[0][1])
        solution = quantiles * deviation(schedule[-1][2])
        errors[steps] = [float((denoised(noisy, schedule, predict, order) - solution).abs().max()) for order in (1, 2)]
    assert errors[8][1] < 0.6 * errors[8][0]
    assert errors[16][1] < 0.4 * errors[16][0]
    (first, second), (finer_first, finer_second) = errors[8], errors[16]
    assert second / finer_second > 1.3 * first / finer_first, "they converge faster"


@pytest.mark.parametrize("case", ["A", "B", "C"])
def test_distillation_from_recorded_predictions(golden: Golden, case: str) -> None:
    recorded = {k[2:]: v for k, v in golden("zero123/sds.safetensors").items() if k.startswith(case)}
    latents = recorded["latents"].double()[None].requires_grad_()
    noise, kept = recorded["noise"].double()[None], alphas_cumprod()[recorded["t"]][None]
    noisy = add_noise(latents.detach(), noise, kept)
    assert_agrees("noisy latents", noisy[0], recorded["latents_noisy"], 1e-6, relative=True)
    uncond, cond = recorded["eps_uncond"].double(), recorded["eps_cond"].double()
    loss = distillation_loss(latents, (uncond + 5 * (cond - uncond))[None], noise, kept)
    assert_agrees("loss", loss, recorded["loss_sds"], 1e-5, relative=True)
    (gradient,) = torch.autograd.grad(loss.sum(), latents)
    assert_agrees("latent gradient", gradient[0], recorded["latent_grad"], 1e-5, relative=True)
    norm = gradient.norm() * len(recorded["t"])
    assert_agrees("gradient norm", norm[None], recorded["grad_norm"], 1e-5, relative=True)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_undefined_predictions_give_no_gradient_and_are_counted(value: float) -> None:
    latents = torch.randn(1, 2, 4, 3, 3, requires_grad=True)
    predicted, noise = torch.randn(2, 1, 2, 4, 3, 3)
    predicted[0, 1] = value
    assert int(count_undefined(predicted)) == 4 * 3 * 3
    loss = distillation_loss(latents, predicted, noise, torch.full((1, 2), 0.5))
    (gradient,) = torch.autograd.grad(loss.sum(), latents)
    assert torch.isfinite(loss).all()
    assert not gradient[0, 1].any()
    assert gradient[0, 0].all()


def test_scheduler_of_another_kind_of_prior_is_refused() -> None:
    with pytest.raises(InputError, match=r"s\.json: prediction_type 'v_prediction' is not supported, only 'epsilon'"):
        alphas_from_config({"prediction_type": "v_prediction"}, "s.json")
    with pytest.raises(InputError, match="beta_schedule 'squaredcos_cap_v2'"):
        alphas_from_config({"beta_schedule": "squaredcos_cap_v2"}, "s.json")
    assert torch.equal(alphas_from_config({}, "s.json"), alphas_cumprod())


@pytest.mark.parametrize("steps", [0, 1000])
def test_impossible_number_of_sampling_steps_is_refused(steps: int) -> None:
    with pytest.raises(InputError, match=f"{steps} steps asked for; choose 1 to 999"):
        ddim_timesteps(1000, steps)
