"""Score distillation with a Zero123 prior (method.md section 5; Liu et al. 2023, Poole et al. 2023)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from consistent4d_ns.data.images import resized
from consistent4d_ns.device.cuda import trying_no_algorithms
from consistent4d_ns.guidance.camera_convention import resolve_convention
from consistent4d_ns.guidance.conditioning import Conditions, image_tokens
from consistent4d_ns.guidance.config import GuidanceConfig
from consistent4d_ns.guidance.fused import fuse_networks, runs_fused
from consistent4d_ns.guidance.latent import LatentGuidance, Scale, freeze, vae_posterior
from consistent4d_ns.guidance.networks import Zero123Networks


class Zero123Guidance(LatentGuidance[Zero123Networks, Conditions]):
    """A frozen Zero123 prior, conditioned on the frames of one video."""

    def __init__(
        self,
        networks: Zero123Networks,
        config: GuidanceConfig,
        device: torch.device | str,
        condition_elevation: float = 0.0,
    ) -> None:
        """Take over `networks`: they are frozen and moved to `device`, and parts not needed after `prepare` are freed.

        Args:
            networks: The loaded prior.
            config: Precision, implementation, camera convention, and whether previews are possible.
            device: Where everything runs.
            condition_elevation: Elevation in degrees of the input camera; Stable-Zero123's camera vector holds it.
        """
        super().__init__(networks, config, device)
        self.config = config
        self.camera_convention, self.convention_reason = resolve_convention(
            config.camera_convention, config.prior, networks.camera_convention
        )
        self._polar_angle = math.radians(90.0 - condition_elevation)
        self._conditions: Conditions | None = None
        freeze(networks.projection, self.device, torch.float32)

    # Conditioning

    def prepare(self, images: Float[Tensor, "frames 3 side side"]) -> None:
        """Condition on the video's frames: `images` in [0, 1] on white, square, of any size (resized by area).

        Without previews, image encoder and VAE decoder are freed afterwards: it can then be called once only.
        """
        freeze(self._networks.image_encoder, self.device, torch.float32)
        freeze(self._networks.vae, self.device, torch.float32)
        chunks = [self._condition(chunk.to(self.device)) for chunk in images.split(self.config.condition_batch)]
        tokens = torch.cat([chunk.tokens for chunk in chunks])
        self._conditions = Conditions(tokens, torch.cat([chunk.latents for chunk in chunks]))
        self._graphed_distil.forget()
        if not self.config.previews:
            self.end_sampling()
        freeze(self._networks.vae, self.device, self._dtype)
        if runs_fused(self.config.implementation, self.device):
            fuse_networks(self._networks)

    def end_sampling(self) -> None:
        """Free image encoder and VAE decoder: nothing can be sampled nor conditioned on any more."""
        super().end_sampling()
        if hasattr(self._networks, "image_encoder"):
            del self._networks.image_encoder

    @torch.no_grad()
    def _condition(self, images: Float[Tensor, "images 3 side side"]) -> Conditions:
        with self._without_autocast(), trying_no_algorithms():
            images = resized(images.to(torch.float32), self.image_size)
            return Conditions(image_tokens(images, self._networks), vae_posterior(images, self._networks.vae)[0])

    def context(
        self, tokens: Float[Tensor, "views tokens width"], poses: Float[Tensor, "views 4"]
    ) -> Float[Tensor, "views tokens context"]:
        """The UNet's context: each image token joined with the camera vector and projected (method.md section 5.2)."""
        cameras = poses.to(tokens)
        if self.camera_convention == "stable-zero123":
            cameras = torch.cat((cameras[:, :3], torch.full_like(cameras[:, 3:], self._polar_angle)), dim=-1)
        cameras = cameras[:, None].expand(-1, tokens.shape[1], -1)
        return self._networks.projection(torch.cat((tokens, cameras), dim=-1))

    @property
    def conditions(self) -> Conditions:
        """Image tokens and condition latents of all frames."""
        if self._conditions is None:
            raise RuntimeError("Zero123Guidance.prepare() must be called before losses or samples are computed.")
        return self._conditions

    def view_conditions(self, poses: Float[Tensor, "views 4"], frames: Int64[Tensor, " views"]) -> Conditions:
        """The UNet's conditions of each view: its context, in place of the tokens, and its condition latent."""
        chosen = self.conditions[self._to_device(frames)]
        return Conditions(self.context(chosen.tokens, self._to_device(poses)), chosen.latents)

    @torch.no_grad()
    def predict_noise(
        self,
        noisy: Float[Tensor, "levels views c h w"],
        timesteps: Int64[Tensor, "levels views"],
        conditions: Conditions,
        scale: Scale,
    ) -> Float[Tensor, "levels views c h w"]:
        """Classifier-free guided noise u + scale (c - u), from one UNet call for all levels and both halves.

        `conditions` hold one context and condition latent per view; the unconditional half, which has zeros, is first.
        At a scale of the number 1, the guided noise is c, and that half alone is evaluated.
        """
        latents = conditions.latents.expand_as(noisy)[None]
        context = conditions.tokens.expand(1, noisy.shape[0], *conditions.tokens.shape)
        is_plain = not isinstance(scale, Tensor) and scale == 1.0
        if not is_plain:
            latents, context = (torch.cat((torch.zeros_like(half), half)) for half in (latents, context))
        halves = len(latents)
        inputs = torch.cat((noisy.expand(halves, *noisy.shape), latents), dim=3)
        predicted = self._networks.unet(
            inputs.flatten(0, 2).to(self._dtype),
            timesteps.expand(halves, *timesteps.shape).flatten(),
            encoder_hidden_states=context.flatten(0, 2).to(self._dtype),
        ).sample
        predicted = predicted.to(noisy.dtype).view(halves, *noisy.shape)
        if is_plain:
            return predicted[0]
        unconditional, conditional = predicted
        return unconditional + scale * (conditional - unconditional)
