"""Diffusion, score distillation and sampling as pure functions (method.md sections 5.1 and 5.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from consistent4d_ns.errors import InputError

TIMESTEPS = 1000
"""Length of Stable Diffusion's and Zero123's noise schedule."""
MAX_TIMESTEPS = 100_000
"""Longest schedule that is read; a billion steps would fill any memory."""
BETA_START = 0.00085
"""Its first beta: the share of the variance that one timestep replaces by noise."""
BETA_END = 0.012
"""Its last beta."""
BETA_SCHEDULE = "scaled_linear"
"""Spacing of the betas between them: their square roots are evenly spaced."""


def alphas_cumprod(
    num_timesteps: int = TIMESTEPS,
    beta_start: float = BETA_START,
    beta_end: float = BETA_END,
    beta_schedule: str = BETA_SCHEDULE,
) -> Float[Tensor, " timesteps"]:
    """Share of the signal's variance left at each timestep, in float64.

    Args:
        num_timesteps: Length of the schedule.
        beta_start: Share of the variance that the first timestep replaces by noise.
        beta_end: Share of the variance that the last timestep replaces by noise.
        beta_schedule: "scaled_linear" (square roots of the betas are evenly spaced, as in Zero123) or "linear".
    """
    power = {"scaled_linear": 2, "linear": 1}[beta_schedule]
    roots = torch.linspace(beta_start ** (1 / power), beta_end ** (1 / power), num_timesteps, dtype=torch.float64)
    return (1 - roots**power).cumprod(0)


def alphas_from_config(
    config: Mapping[str, Any], source: str, predictions: tuple[str, ...] = ("epsilon",)
) -> Float[Tensor, " timesteps"]:
    """The noise schedule described by a diffusers `scheduler_config.json`; Zero123's values where it gives none.

    Args:
        config: The file's contents.
        source: Its name, for messages.
        predictions: What the prior's UNet may predict, in diffusers' terms.

    Raises:
        InputError: The prior's parametrisation or schedule is not supported.
    """
    supported = {
        "prediction_type": predictions,
        "beta_schedule": ("scaled_linear", "linear"),
        "trained_betas": (None,),
        "rescale_betas_zero_snr": (False,),
    }
    for key, values in supported.items():
        if key in config and config[key] not in values:
            raise InputError(
                f"{source}: {key} {config[key]!r} is not supported, only {' or '.join(map(repr, values))}."
            )
    given = {key: config[key] for key in ("beta_start", "beta_end", "beta_schedule") if key in config}
    try:
        timesteps = config.get("num_train_timesteps", TIMESTEPS)
        if not (isinstance(timesteps, int) and 1 <= timesteps <= MAX_TIMESTEPS):
            raise ValueError(f"num_train_timesteps is {timesteps!r}, not a number from 1 to {MAX_TIMESTEPS}")
        alphas = alphas_cumprod(timesteps, **given)
        if not bool(((alphas > 0) & (alphas < 1)).all()):
            raise ValueError("its shares of the signal are not between 0 and 1")
        return alphas
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).split("\n", 1)[0]
        raise InputError(f"{source}: describes no noise schedule ({reason}); download the prior again.") from error


def add_noise(
    latents: Float[Tensor, "*batch c h w"], noise: Float[Tensor, "*batch c h w"], kept: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch c h w"]:
    """sqrt(ac) z + sqrt(1 - ac) eps, with `kept` = ac the value of `alphas_cumprod` at each item's timestep."""
    ac = kept[..., None, None, None]
    return ac.sqrt() * latents + (1 - ac).sqrt() * noise


def distillation_loss(
    latents: Float[Tensor, "levels views c h w"],
    predicted: Float[Tensor, "levels views c h w"],
    noise: Float[Tensor, "levels views c h w"],
    kept: Float[Tensor, "levels views"],
) -> Float[Tensor, " levels"]:
    """0.5 sum((z - stop(z - g))^2) / views of each level, g = (1 - ac)(eps_hat - eps), so that dloss/dz = g / views.

    Args:
        latents: z, the encoded images; gradients flow into them alone.
        predicted: eps_hat, the prior's noise prediction; values that are not finite count as no gradient.
        noise: eps, the noise that was added.
        kept: ac, the value of `alphas_cumprod` at each view's timestep.
    """
    gradient = (1 - kept[..., None, None, None]) * (predicted - noise)
    gradient = torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0).detach()
    target = (latents - gradient).detach()
    return 0.5 * (latents - target).square().sum((1, 2, 3, 4)) / latents.shape[1]


def noise_from_velocity(
    velocity: Float[Tensor, "*batch c h w"], noisy: Float[Tensor, "*batch c h w"], kept: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch c h w"]:
    """The noise in noisy latents, if the prior predicts v = sqrt(ac) eps - sqrt(1 - ac) z (Salimans and Ho 2022).

    Args:
        velocity: v.
        noisy: sqrt(ac) z + sqrt(1 - ac) eps.
        kept: ac, the value of `alphas_cumprod` at each item's timestep.
    """
    ac = kept[..., None, None, None]
    return ac.sqrt() * velocity + (1 - ac).sqrt() * noisy


def guided(
    unconditional: Float[Tensor, "*batch c h w"],
    conditional: Float[Tensor, "*batch c h w"],
    scale: float | Float[Tensor, ""],
    rescale: float = 0.0,
) -> Float[Tensor, "*batch c h w"]:
    """Classifier-free guided prediction u + scale (c - u), its standard deviation brought back towards that of c.

    Large scales make predictions, and with them images, far too contrasty. Lin et al. 2023 ("Common Diffusion Noise
    Schedules and Sample Steps are Flawed", section 3.4) multiply the prediction of each image by std(c) / std(guided),
    and mix it with the guided one.

    Args:
        unconditional: u, for the negative prompt.
        conditional: c, for the prompt.
        scale: Guidance scale.
        rescale: Share of the rescaled prediction in the mixture, 0 to 1.
    """
    mixed = unconditional + scale * (conditional - unconditional)
    if rescale == 0.0:
        return mixed
    wanted, found = (part.flatten(-3).std(dim=-1)[..., None, None, None] for part in (conditional, mixed))
    return mixed * (1.0 - rescale + rescale * wanted / found)


def count_undefined(predicted: Float[Tensor, "*batch"]) -> Int64[Tensor, ""]:
    """Number of predictions that are infinite or NaN, as half precision yields where it overflows."""
    return (~torch.isfinite(predicted)).sum()


def ddim_timesteps(num_timesteps: int, steps: int) -> Int64[Tensor, " steps"]:
    """Timesteps visited by `steps` sampling steps, from noise to image: "leading" spacing, offset by 1.

    Raises:
        InputError: `steps` is not in [1, num_timesteps - 1].
    """
    if not 1 <= steps < num_timesteps:
        raise InputError(f"sampling: {steps} steps asked for; choose 1 to {num_timesteps - 1}.")
    return torch.arange(steps).flip(0) * (num_timesteps // steps) + 1


def ddim_schedule(alphas: Float[Tensor, " timesteps"], steps: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Timestep, its `alphas_cumprod` and the next step's, of every sampling step; timestep 0 follows the last."""
    stride = len(alphas) // steps
    for timestep in ddim_timesteps(len(alphas), steps).tolist():
        yield timestep, alphas[timestep], alphas[max(timestep - stride, 0)]


def descent_timesteps(num_timesteps: int, steps: int, strength: float) -> Int64[Tensor, " steps+1"]:
    """Timesteps of `steps` even sampling steps from noise level `strength` to 0; the last is where they end.

    Raises:
        InputError: `strength` is not in (0, 1], or there are fewer timesteps below it than steps.
    """
    if not 0.0 < strength <= 1.0:
        raise InputError(f"sampling: it cannot start at noise level {strength}; choose one above 0 and up to 1.")
    first = strength * (num_timesteps - 1)
    if not 1 <= steps <= first:
        raise InputError(f"sampling: {steps} steps from noise level {strength}; choose 1 to {int(first)}.")
    return torch.linspace(first, 0, steps + 1).round().long()


def descent_schedule(
    alphas: Float[Tensor, " timesteps"], steps: int, strength: float
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """As `ddim_schedule`, but from noise level `strength`, a fraction of the schedule's length, evenly down to 0."""
    timesteps = descent_timesteps(len(alphas), steps, strength).tolist()
    for timestep, following in pairwise(timesteps):
        yield timestep, alphas[timestep], alphas[following]


def predicted_clean(
    noisy: Float[Tensor, "*batch c h w"], predicted: Float[Tensor, "*batch c h w"], kept: Float[Tensor, ""]
) -> Float[Tensor, "*batch c h w"]:
    """The clean latents, if `predicted` is the noise in those of noise level `kept`."""
    return (noisy - (1 - kept).sqrt() * predicted) / kept.sqrt()


def step_towards(
    clean: Float[Tensor, "*batch c h w"],
    noisy: Float[Tensor, "*batch c h w"],
    kept: Float[Tensor, ""],
    next_kept: Float[Tensor, ""],
) -> Float[Tensor, "*batch c h w"]:
    """Latents of noise level `kept` at `next_kept`, with their noise, if they become `clean` without it.

    With `predicted_clean` this is a deterministic DDIM step (eta 0, no clipping; Song et al. 2021).
    """
    ratio = ((1 - next_kept) / (1 - kept)).sqrt()
    return ratio * noisy + (next_kept.sqrt() - ratio * kept.sqrt()) * clean


def extrapolated_clean(
    clean: Float[Tensor, "*batch c h w"],
    earlier: Float[Tensor, "*batch c h w"],
    kept: tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]],
) -> Float[Tensor, "*batch c h w"]:
    """The clean latents extrapolated to the middle of the coming step, for a step of second order.

    DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): predictions of the clean latents change linearly with the logarithm
    of the signal-to-noise ratio.

    Args:
        clean: The clean latents as predicted where the step begins.
        earlier: As predicted where the step before it began.
        kept: `alphas_cumprod` where the step before began, where this one begins and where it ends.
    """
    before, here, after = (torch.log(ac / (1 - ac)) for ac in kept)
    return clean + (after - here) / (2 * (here - before)) * (clean - earlier)


def denoised(
    latents: Float[Tensor, "*batch c h w"],
    schedule: Sequence[tuple[int, Tensor, Tensor]],
    predict: Callable[[Tensor, int], Tensor],
    order: Literal[1, 2],
) -> Float[Tensor, "*batch c h w"]:
    """Latents at the end of a schedule: by DDIM, or by DPM-Solver++(2M), whose first and last steps are those of DDIM.

    Args:
        latents: Latents with the noise of the schedule's beginning.
        schedule: Timestep of each step, its `alphas_cumprod` and the next step's.
        predict: Noise in latents at a timestep.
        order: 1: DDIM; 2: DPM-Solver++(2M).
    """
    earlier: tuple[Tensor, Tensor] | None = None
    for number, (timestep, kept, next_kept) in enumerate(schedule, start=1):
        clean = target = predicted_clean(latents, predict(latents, timestep), kept)
        if order == 2 and earlier is not None and number < len(schedule):
            target = extrapolated_clean(clean, earlier[0], (earlier[1], kept, next_kept))
        latents = step_towards(target, latents, kept, next_kept)
        earlier = clean, kept
    return latents
