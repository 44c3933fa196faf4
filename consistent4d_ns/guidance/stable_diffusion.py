"""Score distillation from a text-to-image prior (method.md section 16; Poole et al. 2023, Rombach et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from consistent4d_ns.data.cameras import OrbitViews, absolute_view
from consistent4d_ns.guidance.config import TextGuidanceConfig
from consistent4d_ns.guidance.diffusion import guided, noise_from_velocity
from consistent4d_ns.guidance.fused import fuse, runs_fused
from consistent4d_ns.guidance.latent import LatentGuidance, Scale, freeze
from consistent4d_ns.guidance.stable_diffusion_layout import TextToImageNetworks
from consistent4d_ns.guidance.view_prompts import view_kinds, view_prompts
from consistent4d_ns.messages import warn


@dataclass(frozen=True)
class Contexts:
    """The UNet's contexts of some views: encoded prompts."""

    prompts: Float[Tensor, "views tokens width"]
    """Of the prompt of each view."""
    negative: Float[Tensor, "views tokens width"]
    """Of the negative prompt."""


class StableDiffusionGuidance(LatentGuidance[TextToImageNetworks, Contexts]):
    """A frozen text-to-image prior, which reads a prompt for each view: whether it shows front, side, back, or top."""

    def __init__(
        self,
        networks: TextToImageNetworks,
        config: TextGuidanceConfig,
        prompt: str,
        front: OrbitViews,
        device: torch.device | str,
    ) -> None:
        """Take over `networks`, encode all prompts, and free what is not needed any more.

        Args:
            networks: The loaded prior; without `config.previews` it loses its decoder, and always its text encoder.
            config: Prompts of views, precision, implementation, and whether previews are possible.
            prompt: What the object is.
            front: The view that all others are relative to, one view; azimuths count from it.
            device: Where everything runs.
        """
        super().__init__(networks, config, device)
        self.config = config
        self._front = front.to(self.device)  # A recorded step brings nothing to the device.
        prompts = [config.negative_prompt, *view_prompts(prompt, config)]
        self._contexts: Float[Tensor, "prompts tokens width"] = self._encode_prompts(prompts)
        network: Any = networks
        del network.text_encoder, network.tokenizer
        if not config.previews:
            self.end_sampling()
        freeze(networks.vae, self.device, self._dtype)
        if runs_fused(config.implementation, self.device):
            fuse(networks.unet)
            fuse(networks.vae.encoder)

    @torch.no_grad()
    def _encode_prompts(self, prompts: Sequence[str]) -> Float[Tensor, "prompts tokens width"]:
        """Contexts of prompts: the text encoder's last hidden states, of as many tokens as it takes; in float32."""
        tokenizer: Any = self._networks.tokenizer
        length = self._networks.text_encoder.config.max_position_embeddings
        for prompt in prompts:
            if len(tokenizer(prompt, truncation=True, max_length=length + 1).input_ids) > length:
                warn(f"the prompt {prompt!r} has more than the {length} tokens that are read; shorten it.")
        freeze(self._networks.text_encoder, self.device, torch.float32)
        tokens = tokenizer(list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        with self._without_autocast():
            return self._networks.text_encoder(tokens.input_ids.to(self.device)).last_hidden_state

    def view_conditions(self, poses: Float[Tensor, "views 4"], frames: Int64[Tensor, " views"]) -> Contexts:
        """The contexts of each view's prompt and of the negative one; frames have no effect."""
        elevation, azimuth, _ = absolute_view(self._to_device(poses), self._front)
        kinds = view_kinds(elevation, azimuth - self._front.azimuth, self.config)
        return Contexts(self._contexts[1 + kinds], self._contexts[:1].expand(len(kinds), -1, -1))

    @torch.no_grad()
    def predict_noise(
        self,
        noisy: Float[Tensor, "levels views c h w"],
        timesteps: Int64[Tensor, "levels views"],
        conditions: Contexts,
        scale: Scale,
    ) -> Float[Tensor, "levels views c h w"]:
        """Classifier-free guided noise, from one UNet call for all levels and both halves.

        Guidance and rescaling act on what the UNet predicts, noise or velocity. At a scale of the number 1, the
        half of the negative prompt has no effect and is left out.
        """
        is_plain = not isinstance(scale, Tensor) and scale == 1.0
        halves = [conditions.prompts] if is_plain else [conditions.negative, conditions.prompts]
        context = torch.stack([half.expand(len(noisy), *half.shape) for half in halves])
        count = len(halves)
        predicted = self._networks.unet(
            noisy.expand(count, *noisy.shape).flatten(0, 2).to(self._dtype),
            timesteps.expand(count, *timesteps.shape).flatten(),
            encoder_hidden_states=context.flatten(0, 2).to(self._dtype),
        ).sample
        predicted = predicted.to(noisy.dtype).view(count, *noisy.shape)
        mixed = predicted[0] if is_plain else guided(predicted[0], predicted[1], scale, self.config.rescale)
        return noise_from_velocity(mixed, noisy, self._alphas[timesteps]) if self._networks.predicts_velocity else mixed
