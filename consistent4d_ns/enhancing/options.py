"""Options of the video enhancer; imports nothing slow, so that help is shown immediately."""

from __future__ import annotations

import math
from dataclasses import dataclass

from consistent4d_ns.errors import InputError

STRIDE = 16
"""Sides of the generator's images are multiples of this many pixels."""
MAX_SIDE = 2048
"""Largest side of an image that is enhanced, in pixels: the attention's work grows with the fourth power of it."""
DEFAULT_MODEL = "DeepFloyd/IF-II-L-v1.0"
"""Hub id of the diffusion model that the paper uses."""
DEFAULT_STRENGTH = 0.35
"""Strength of the paper's image-to-image step."""


@dataclass(frozen=True)
class PseudoTruthOptions:
    """How a diffusion model improves the rendered frames that the enhancer learns from."""

    model: str = DEFAULT_MODEL
    """A super-resolution or image-to-image model in the layout of diffusers, with safetensors: a folder, or the hub id
    of one in the hub's cache."""
    prompt: str = ""
    """What the video shows, in a few words."""
    strength: float | None = None
    """How much is repainted, above 0 and at most 1; default: 0.35. Upscalers have none."""
    diffusion_steps: int = 50
    """Steps of the whole noise schedule, 1 to 1000; as many as the strength's share of them are done."""

    def check(self) -> None:
        """Raises: InputError: a value out of range."""
        strength = DEFAULT_STRENGTH if self.strength is None else self.strength
        if not 0.0 < strength <= 1.0:
            raise InputError(f"--strength {strength:g}: give a value above 0 and at most 1.")
        _in_range("--diffusion-steps", self.diffusion_steps, 1, 1000)
        if int(self.diffusion_steps * strength) < 1:
            raise InputError(
                f"--diffusion-steps {self.diffusion_steps} at a strength of {strength:g} is less than one step: "
                f"give at least {math.ceil(1 / strength)}."
            )


@dataclass(frozen=True)
class TrainingOptions:
    """How the enhancer is trained."""

    size: int = 256
    """Side of the rendered frames in pixels, a multiple of 16 from 32 to 1024."""
    epochs: int = 200
    """Passes over all frames, 2 to 10000; in the second half the learning rate falls to 0."""
    seed: int = 0
    """Seed of everything random."""

    def check(self) -> None:
        """Raises: InputError: a value out of range."""
        _in_range("--size", self.size, 32, 1024)
        if self.size % STRIDE:
            raise InputError(
                f"--size {self.size}: give a multiple of {STRIDE}, such as {self.size // STRIDE * STRIDE}."
            )
        _in_range("--epochs", self.epochs, 2, 10_000)
        _in_range("--seed", self.seed, 0, 2**31 - 1)


@dataclass(frozen=True)
class ClipOptions:
    """Which frames of the run are rendered for training."""

    clips: int = 8
    """Orbits while time passes, 1 to 64; they begin at azimuths that are evenly spaced around the object."""

    def check(self) -> None:
        """Raises: InputError: a value out of range."""
        _in_range("--clips", self.clips, 1, 64)


def _in_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InputError(f"{name} {value}: give a value from {low} to {high}.")
