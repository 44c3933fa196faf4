"""Settings of the guidance, and what can be derived from them alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from consistent4d_ns.errors import InputError
from consistent4d_ns.guidance.diffusion import TIMESTEPS
from consistent4d_ns.schedules import Anneal

Implementation = Literal["auto", "torch", "fused"]


@dataclass
class PriorConfig:
    """Which diffusion prior is loaded, and how its networks run."""

    prior: str = ""
    """A hub id, or a folder in the diffusers layout."""
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """Number format of UNet and VAE; auto: fp16 on CUDA, bf16 on CPUs that multiply it fast (AMX, or AMD's
    AVX-512), fp32 elsewhere. Conditions and losses are always fp32."""
    cuda_graphs: bool = True
    """On CUDA, capture a distillation step once per image shape and replay it from then on: one launch instead of
    thousands. Each graph reserves its own memory pool. Previews are not captured: they are rare, of other shapes, and
    run while training continues."""
    implementation: Implementation = "auto"
    """Implementation of UNet and VAE encoder. "fused", on CUDA with Triton only: residual blocks with fewer passes over
    memory and a third of the activation memory. "auto": fused where possible, else torch."""
    previews: bool = False
    """Keep in memory what views are sampled from the prior with, so that it can be asked for any view."""


@dataclass
class DistillationConfig(PriorConfig):
    """The prior that novel views are distilled from, its guidance scale and noise levels (method.md section 5)."""

    kind: str = "none"
    """Which kind of prior, or none: nothing is loaded and nothing distilled."""
    scale: float = 5.0
    """Classifier-free guidance scale (method.md section 5.3). 1 is the prior's own prediction and needs half of the
    UNet's work."""
    min_noise: Anneal = field(default_factory=lambda: Anneal(0.8, 0.2, 5000))
    """Minimum noise level drawn, as a fraction of the noise schedule's length."""
    max_noise: Anneal = field(default_factory=lambda: Anneal(0.98, 0.25, 5000))
    """Maximum noise level drawn, as a fraction of the noise schedule's length."""

    def check(self) -> None:
        """Raises: InputError: the scale is not finite, or noise levels cross or leave the schedule."""
        if self.kind == "none":
            return
        if not math.isfinite(self.scale):
            raise InputError(f"--pipeline.guidance.scale is {self.scale}: give a finite number, such as 5.")
        check_noise_levels(self)


@dataclass
class GuidanceConfig(DistillationConfig):
    """A Zero123 prior, which sees the input frames (method.md sections 5.1 and 5.2)."""

    kind: Literal["zero123", "none"] = "zero123"
    """A Zero123 prior, or none: nothing is loaded and nothing distilled."""
    prior: str = "ashawkey/zero123-xl-diffusers"
    """`bundled` (the small prior that comes with this package), a hub id, a folder in the diffusers layout (write
    ./bundled for one of that name), or a .ckpt / .safetensors file in the original authors' layout."""
    condition_batch: int = 8
    """Input frames whose conditions are computed at a time."""
    camera_convention: Literal["auto", "zero123", "stable-zero123"] = "auto"
    """Fourth entry of the camera vector: distance difference, or Stable-Zero123's polar angle of the input camera.
    auto: what the prior's files say, else the name it was published under (see `camera_convention.py`)."""


@dataclass
class TextGuidanceConfig(DistillationConfig):
    """A text-to-image prior in Stable Diffusion's layout, which reads a prompt (method.md section 16)."""

    kind: Literal["stable-diffusion", "none"] = "stable-diffusion"
    """A prior in Stable Diffusion's layout, or none: nothing is loaded and nothing can be learnt."""
    prior: str = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    """A hub id, or a folder in the diffusers layout with unet, vae, text_encoder, tokenizer and scheduler: Stable
    Diffusion 1.x or 2.x, or one fine-tuned from it. Weights are read from safetensors alone."""
    scale: float = 100.0
    """Classifier-free guidance scale; with `rescale`, far lower ones work, too."""
    rescale: float = 0.0
    """Share of guided predictions whose standard deviation is brought back to that of the predictions for the prompt,
    0 to 1 (Lin et al. 2023, section 3.4): 0 leaves them as they are, 0.7 is what its authors use."""
    negative_prompt: str = ""
    """What views should not show: takes the place of the empty prompt in classifier-free guidance, for all views."""
    view_prompts: tuple[str, str, str, str] = ("{}, front view", "{}, side view", "{}, back view", "{}, overhead view")
    """Prompts of front, side, back and overhead views; {} stands for the prompt, which four times {} leaves as it
    is."""
    front_angle: float = 45.0
    """Azimuths up to this many degrees from the front, to either side, are front views; 0 to 180."""
    back_angle: float = 45.0
    """Azimuths up to this many degrees from the back are back views; 0 to 180 less `front_angle`."""
    overhead_angle: float = 60.0
    """Elevations above this many degrees are overhead views, whatever their azimuth; -90 to 90."""
    min_noise: Anneal = field(default_factory=lambda: Anneal(0.02))
    """Minimum noise level drawn, as a fraction of the noise schedule's length."""
    max_noise: Anneal = field(default_factory=lambda: Anneal(0.98, 0.5, 5000))
    """Maximum noise level drawn, as a fraction of the noise schedule's length."""

    def check(self) -> None:
        """Raises: InputError: as for other priors; or an angle, the rescaling, or a view's prompt cannot be used."""
        super().check()
        limits = {
            "rescale": (0.0, 1.0),
            "front_angle": (0.0, 180.0),
            "back_angle": (0.0, 180.0 - min(max(self.front_angle, 0.0), 180.0)),
            "overhead_angle": (-90.0, 90.0),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                option = name.replace("_", "-")
                raise InputError(f"--pipeline.guidance.{option} is {value}: give a number from {low:g} to {high:g}.")
        for prompt in self.view_prompts:
            if prompt.count("{}") != 1:
                raise InputError(
                    f"--pipeline.guidance.view-prompts has {prompt!r}: write {{}} once, where the prompt is to "
                    "stand, as in "
                    "'{}, front view'."
                )


def timestep_range(noise_range: tuple[float, float], num_timesteps: int) -> tuple[int, int]:
    """Minimum and maximum timestep, both inclusive, of a range of noise levels (method.md section 5.3).

    The fractions are cut to whole timesteps. A product such as 1000 * 0.2 that floating point leaves just below a
    whole number counts as that number: the original drew from 199 there (quirk 21).

    Args:
        noise_range: Least and greatest noise level, as fractions of the schedule's length.
        num_timesteps: Length of the noise schedule.

    Raises:
        InputError: The range is empty or leaves the noise schedule.
    """
    if all(map(math.isfinite, noise_range)):
        low, high = (math.floor(level * num_timesteps + 1e-6) for level in noise_range)
        if 0 <= low <= high < num_timesteps:
            return low, high
    least, greatest = noise_range
    raise InputError(
        f"--pipeline.guidance: the noise levels {least:.4g} to {greatest:.4g} are no range within 0 to "
        f"{num_timesteps - 1} of "
        f"{num_timesteps} timesteps; change its min-noise or max-noise."
    )


def check_noise_levels(config: DistillationConfig, num_timesteps: int = TIMESTEPS) -> None:
    """Make sure that distillation can draw a noise level at every training step, however long training takes.

    Raises:
        InputError: At some step the range of noise levels is empty or leaves the noise schedule; names the first one.
    """
    schedules = (config.min_noise, config.max_noise)
    last = max(max(schedule.begin_step, schedule.end_step) for schedule in schedules)  # constant from there on
    for step in range(last + 1):
        try:
            timestep_range((config.min_noise(step), config.max_noise(step)), num_timesteps)
        except InputError as error:
            raise InputError(f"{error} This happens from training step {step} on.") from None
