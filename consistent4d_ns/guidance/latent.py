"""What all latent diffusion priors share: encoding, score distillation, sampling (method.md sections 5.1 and 5.3)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeAlias, TypeVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from consistent4d_ns.device.cuda_graphs import Graphed
from consistent4d_ns.errors import InputError
from consistent4d_ns.guidance.base import GuidanceDraws, Start
from consistent4d_ns.guidance.config import PriorConfig
from consistent4d_ns.guidance.diffusion import (
    add_noise,
    count_undefined,
    ddim_schedule,
    denoised,
    descent_schedule,
    descent_timesteps,
    distillation_loss,
)
from consistent4d_ns.guidance.gradients import LossWithGradient, pull_back
from consistent4d_ns.guidance.networks import LatentModel

Scale: TypeAlias = float | Float[Tensor, ""]
"""Classifier-free guidance scale. A number is known before anything runs, and 1 then needs half of the UNet's work."""

DECODED_AT_ONCE = 8
"""Latents decoded together: the decoder of a full-size prior needs much memory for each."""


Networks = TypeVar("Networks", bound=LatentModel)
"""The networks of a prior."""
ViewConditions = TypeVar("ViewConditions")
"""What its UNet is conditioned on."""


class LatentGuidance(ABC, Generic[Networks, ViewConditions]):
    """A frozen latent diffusion prior. Not a module, so it stays out of checkpoints.

    UNet and VAE run in the configured precision. Conditions, random draws, losses and gradients are float32. Subclasses
    say what views are conditioned on, and what noise the UNet then predicts.
    """

    def __init__(self, networks: Networks, config: PriorConfig, device: torch.device | str) -> None:
        """Take over `networks`: the UNet is frozen and moved to `device`; the VAE is left to the subclass.

        Args:
            networks: The loaded prior.
            config: Precision, implementation, and whether previews are possible.
            device: Where everything runs.
        """
        self.device = torch.device(device)
        self.image_size = networks.image_size
        self.latent_shape = networks.latent_shape
        self.num_timesteps = len(networks.alphas)
        self.undefined_predictions = torch.zeros((), dtype=torch.int64, device=self.device)
        self._dtype = network_dtype(config.precision, self.device)
        self._networks = networks
        self._alphas = networks.alphas.to(self.device, torch.float32)
        self._graphed_distil = Graphed(self._distil, enabled=config.cuda_graphs and self.device.type == "cuda")
        freeze(networks.unet, self.device, self._dtype)

    @abstractmethod
    def view_conditions(self, poses: Float[Tensor, "views 4"], frames: Int64[Tensor, " views"]) -> ViewConditions:
        """The UNet's conditions of each view, by tensor operations alone (see `Graphed`)."""

    @abstractmethod
    def predict_noise(
        self,
        noisy: Float[Tensor, "levels views c h w"],
        timesteps: Int64[Tensor, "levels views"],
        conditions: ViewConditions,
        scale: Scale,
    ) -> Float[Tensor, "levels views c h w"]:
        """The guided noise in noisy latents, without gradients."""

    def end_sampling(self) -> None:
        """Free the VAE decoder: nothing can be sampled any more; may be called again."""
        for part in ("decoder", "post_quant_conv"):
            if hasattr(self._networks.vae, part):
                delattr(self._networks.vae, part)

    # Distillation

    def loss(
        self,
        images: Float[Tensor, "levels views 3 height width"],
        poses: Float[Tensor, "views 4"],
        frames: Int64[Tensor, " views"],
        draws: GuidanceDraws,
        scale: float,
    ) -> Float[Tensor, " levels"]:
        """Score distillation loss of each level (see `base.Guidance.loss`).

        The gradient for the images is computed here, with the latents' gradient scaled to about 1: the backward pass
        through a half-precision VAE then neither overflows nor underflows, whatever the scale of a GradScaler.

        Where distillation is recorded as a CUDA graph, a scale of 1 has one of its own, and all others share one.
        """
        inputs = [images, poses, frames, draws.posterior_noise, draws.timesteps, draws.noise]
        if scale != 1.0:
            inputs.append(torch.full((), scale, device=self.device))
        losses, gradient, undefined = self._graphed_distil(*map(self._to_device, inputs))
        self.undefined_predictions = self.undefined_predictions + undefined
        return cast(Tensor, LossWithGradient.apply(images, losses, gradient.to(images.dtype)))

    def _distil(
        self,
        images: Float[Tensor, "levels views 3 height width"],
        poses: Float[Tensor, "views 4"],
        frames: Int64[Tensor, " views"],
        posterior_noise: Float[Tensor, "levels views c h w"],
        timesteps: Int64[Tensor, "levels views"],
        noise: Float[Tensor, "levels views c h w"],
        scale: Scale = 1.0,
    ) -> tuple[Float[Tensor, " levels"], Float[Tensor, "levels views 3 height width"], Int64[Tensor, ""]]:
        """Loss of each level, its gradient for the images, and the number of undefined predictions.

        A function of tensors alone (see `Graphed`).
        """
        draws = GuidanceDraws(posterior_noise, timesteps, noise)
        with torch.enable_grad(), self._without_autocast():
            leaf = images.detach().to(torch.float32).requires_grad_()
            latents = self.encode(leaf, posterior_noise)
            conditions = self.view_conditions(poses, frames)
            losses, gradient, undefined = self.distil_latents(latents, conditions, draws, scale)
            return losses, pull_back(gradient, latents, leaf), undefined

    def distil_latents(
        self,
        latents: Float[Tensor, "levels views c h w"],
        conditions: ViewConditions,
        draws: GuidanceDraws,
        scale: Scale,
    ) -> tuple[Float[Tensor, " levels"], Float[Tensor, "levels views c h w"], Int64[Tensor, ""]]:
        """Distillation loss of each level and its gradient for the latents (method.md section 5.3).

        And the number of undefined predictions (see `count_undefined`).
        """
        leaf = latents.detach().requires_grad_()
        timesteps, noise = self._to_device(draws.timesteps), draws.noise.to(latents)
        kept = self._alphas[timesteps]
        predicted = self.predict_noise(add_noise(leaf.detach(), noise, kept), timesteps, conditions, scale)
        losses = distillation_loss(leaf, predicted, noise, kept)
        (gradient,) = torch.autograd.grad(losses.sum(), leaf)
        return losses.detach(), gradient, count_undefined(predicted)

    def encode(
        self, images: Float[Tensor, "levels views 3 height width"], noise: Float[Tensor, "levels views c h w"]
    ) -> Float[Tensor, "levels views c h w"]:
        """Scaled latents of images in [0, 1] of any size, sampled from the VAE's posterior by `noise`."""
        side = self.image_size
        resized = F.interpolate(images.flatten(0, 1), (side, side), mode="bilinear", align_corners=False)
        mean, std = (moment.view(noise.shape) for moment in vae_posterior(resized, self._networks.vae))
        return self._networks.scaling_factor * (mean + std * noise.to(mean))

    # Sampling

    @torch.no_grad()
    def sample(
        self,
        poses: Float[Tensor, "views 4"],
        frames: Int64[Tensor, " views"],
        *,
        scale: float,
        generator: torch.Generator,
        steps: int = 50,
        temperature: float = 1.0,
        start: Start | None = None,
    ) -> Float[Tensor, "views 3 size size"]:
        """Novel views by DDIM from noise (method.md section 5.1; see `base.ViewSampler.sample`).

        From a start, steps are of second order, so that half as many do.

        Raises:
            InputError: The VAE decoder was freed (`previews` is off), or `steps` is out of range.
        """
        if not hasattr(self._networks.vae, "decoder"):
            raise InputError(
                "the prior's VAE decoder is not in memory any more: --pipeline.guidance.previews True keeps it."
            )
        shape = (1, len(poses), *self.latent_shape)
        with self._without_autocast():
            conditions = self.view_conditions(poses, frames)
            latents = temperature * torch.randn(shape, generator=generator, device=generator.device).to(self.device)
            if start is None:
                schedule, order = ddim_schedule(self._alphas, steps), 1
            else:
                schedule, order = descent_schedule(self._alphas, steps, start.strength), 2
                latents = self._noisy_start(start, latents)

            def predict(noisy: Tensor, timestep: int) -> Tensor:
                timesteps = torch.full(shape[:2], timestep, device=self.device)
                return self.predict_noise(noisy, timesteps, conditions, scale)

            latents = denoised(latents, list(schedule), predict, order)
            return self.decode(latents[0])

    def _noisy_start(self, start: Start, noise: Float[Tensor, "1 views c h w"]) -> Float[Tensor, "1 views c h w"]:
        """The latents of a start's images, encoded as the posterior's mean, with noise; pure noise without images."""
        if start.images is None:
            return noise
        latents = self.encode(self._to_device(start.images)[None], torch.zeros_like(noise))
        first = descent_timesteps(self.num_timesteps, 1, start.strength)[0]
        return add_noise(latents, noise, self._alphas[first].expand(noise.shape[:2]))

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "images c h w"]) -> Float[Tensor, "images 3 size size"]:
        """Images in [0, 1] of scaled latents."""
        vae: Any = self._networks.vae
        scaled = (latents / self._networks.scaling_factor).to(vae.dtype)
        decoded = torch.cat([vae.decode(part).sample for part in scaled.split(DECODED_AT_ONCE)])
        return (decoded.to(latents.dtype) * 0.5 + 0.5).clamp(0.0, 1.0)

    def _to_device(self, tensor: Tensor) -> Tensor:
        """`tensor` on the guidance's device, without synchronising."""
        return tensor.to(self.device, non_blocking=True)

    def _without_autocast(self) -> torch.autocast:
        """The networks have a precision of their own; autocast would lower that of the arithmetic around them."""
        return torch.autocast(self.device.type, enabled=False)


def vae_posterior(
    images: Float[Tensor, "images 3 size size"], vae: Any
) -> tuple[Float[Tensor, "images c h w"], Float[Tensor, "images c h w"]]:
    """Mean and standard deviation of the VAE's posterior for images in [0, 1]."""
    # Contiguous: for channels-last images torch's GroupNorm on the CPU loses three digits.
    moments = vae.encode((2 * images - 1).to(vae.dtype).contiguous()).latent_dist.parameters.to(images.dtype)
    mean, logvar = moments.chunk(2, dim=1)
    return mean, torch.exp(0.5 * logvar.clamp(-30.0, 20.0))


def network_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of a `PriorConfig.precision` on `device`."""
    if precision == "auto" and device.type == "cuda":
        precision = "fp16"
    elif precision == "auto":
        precision = "bf16" if multiplies_bf16() else "fp32"
    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]


def multiplies_bf16() -> bool:
    """Whether the CPU multiplies bf16 much faster than float32: with AMX, or with AVX-512 on AMD's CPUs.

    Intel's take as long for the bf16 products of AVX-512 as for those of float32, and conversions come on top.
    """
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # missing in older versions of torch
    is_amd = str(capabilities.get("cpu_name")).startswith("AMD")
    return bool(capabilities.get("amx_bf16") or (is_amd and capabilities.get("avx512_bf16")))


def freeze(network: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Make a network ready for inference."""
    # Not `network.to`: diffusers' override warns about every change of precision.
    nn.Module.to(network, device, dtype).eval().requires_grad_(False)
