"""Settings of the guidance, and what follows from them alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from consistent4d_ns.errors import InputError
from consistent4d_ns.schedules import Anneal

Implementation = Literal["auto", "torch", "fused"]


@dataclass
class GuidanceConfig:
    """Which prior judges the novel views, and how (method.md section 5)."""

    kind: Literal["zero123", "none"] = "zero123"
    """Guidance by a Zero123 prior, or none: nothing is loaded and nothing distilled."""
    prior: str = "ashawkey/zero123-xl-diffusers"
    """`bundled` (the small prior that comes with this package), a hub id, a folder in the diffusers layout (write
    ./bundled for one of that name), or a .ckpt / .safetensors file in the original authors' layout."""
    scale: float = 5.0
    """Classifier-free guidance scale (method.md section 5.3)."""
    min_noise: Anneal = field(default_factory=lambda: Anneal(0.8, 0.2, 5000))
    """Least noise level drawn, as a fraction of the noise schedule's length."""
    max_noise: Anneal = field(default_factory=lambda: Anneal(0.98, 0.25, 5000))
    """Greatest noise level drawn, as a fraction of the noise schedule's length."""
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """Number format of UNet and VAE; auto: fp16 on CUDA, bf16 on CPUs that multiply it fast (AMX), fp32 elsewhere.
    Conditions and losses are always fp32."""
    cuda_graphs: bool = True
    """On CUDA, record a distillation step once for each shape of its images and replay it from then on: one launch for
    thousands. The recording's working memory is kept for it alone. Previews are not recorded: they are rare, of other
    shapes, and asked for while training goes on."""
    implementation: Implementation = "auto"
    """What UNet and VAE encoder run on. "fused", on CUDA with Triton only: residual blocks with fewer passes over
    memory and activations that take a third of it. "auto": fused where that is possible, else torch."""
    condition_batch: int = 8
    """Input frames whose conditions are computed at a time."""
    camera_convention: Literal["auto", "zero123", "stable-zero123"] = "auto"
    """Fourth entry of the camera vector: distance difference, or Stable-Zero123's polar angle of the input camera.
    auto: what the prior's files say, else the name it was published under (see `camera_convention.py`)."""
    previews: bool = False
    """Keep the VAE decoder and the image encoder in memory, so that novel views can be sampled from the prior."""


def timestep_range(config: GuidanceConfig, step: int, num_timesteps: int) -> tuple[int, int]:
    """Least and greatest timestep, both inclusive, that training step `step` may draw (method.md section 5.3).

    The fractions are cut to whole timesteps. A product such as 1000 * 0.2 that floating point leaves just below a
    whole number counts as that number: the original drew from 199 there (quirk 21).

    Raises:
        InputError: The range is empty or leaves the noise schedule.
    """
    low, high = (math.floor(anneal(step) * num_timesteps + 1e-6) for anneal in (config.min_noise, config.max_noise))
    if not 0 <= low <= high < num_timesteps:
        raise InputError(
            f"guidance: min_noise and max_noise give timesteps {low} to {high} at step {step}; "
            f"they must rise within 0 to {num_timesteps - 1}."
        )
    return low, high
