"""Options of the stages of training that fit a bank of target views, and the rounds that follow from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from consistent4d_ns.errors import InputError
from consistent4d_ns.guidance.config import DistillationConfig
from consistent4d_ns.guidance.diffusion import TIMESTEPS, descent_timesteps

MAX_PIXELS = 1 << 28
"""Pixels of a bank of target views, which take some gigabytes while they are made."""
MAX_RAYS = 1 << 20
"""Pixels that a step may fit."""


@dataclass
class ImagineConfig:
    """Rounds in which the prior imagines target views and the object is fitted to them; without a prior, none."""

    steps: int = 0
    """Training steps of each round; 0: no round."""
    begin_step: int = 0
    """Training step at which the first round begins; the others follow it."""
    strengths: tuple[float, ...] = (1.0, 0.8)
    """Noise level at which each round samples its views, as a fraction of the noise schedule's length: 1 samples them
    from pure noise, less from the object's own renderings with noise."""
    views: int = 192
    """Target views of a round, each at a random time."""
    sampling_steps: int = 10
    """Steps in which a view is sampled."""
    scale: float = 1.5
    """Classifier-free guidance scale of the samples; a scale of 1 takes half the time."""
    rays: int = 4096
    """Random pixels that a step fits, of all target views."""
    image_size: int = 64
    """Side of the target views in pixels."""
    white_tolerance: float = 0.04
    """How far from white the background of a sample may be; of what is connected with its border, no more counts as
    background."""


@dataclass
class HoldConfig:
    """A stage that holds what the object looks like from everywhere, cleaned, while the filmed view is sharpened."""

    steps: int = 0
    """Training steps of the stage; 0: no such stage."""
    begin_step: int = 1000
    """Training step at which it begins."""
    views: int = 768
    """Target views, each at a random time, rendered when the stage begins."""
    rays: int = 4096
    """Random pixels that a step fits, of all target views."""
    image_size: int = 64
    """Side of the target views in pixels."""
    opacity_range: tuple[float, float] = (0.5, 0.5)
    """Opacities up to the first become 0, from the second on 1, with a smooth step between them; equal: a hard edge."""
    min_part: float = 0.1
    """Connected parts of a target view that are smaller than this share of its largest one are removed."""
    rgb_factor: float = 1.0
    """Factor on the weight of the input view's colour during the stage."""
    final_rate: float = 0.1
    """Factor on the learning rate at the stage's end, to which it falls exponentially."""


@dataclass
class TargetsConfig:
    """Stages of training whose odd steps fit target views in place of distilling; without any by default."""

    imagine: ImagineConfig = field(default_factory=ImagineConfig)
    """Views that the prior samples."""
    hold: HoldConfig = field(default_factory=HoldConfig)
    """Views that the object itself shows."""

    def check(self, guidance: DistillationConfig) -> None:
        """Raises: InputError: values are out of range, or stages overlap."""
        imagine, hold = self.imagine, self.hold
        for name, part in (("imagine", imagine), ("hold", hold)):
            for option, least in (("steps", 0), ("begin_step", 0), ("views", 1), ("image_size", 1)):
                _within(f"{name}.{option}", getattr(part, option), least, math.inf)
            _within(f"{name}.rays", part.rays, 1, MAX_RAYS)
            if part.views * part.image_size**2 > MAX_PIXELS:
                raise InputError(
                    f"--pipeline.targets.{name}.views is {part.views} and {name}.image-size {part.image_size}: give "
                    f"fewer or smaller views, at most {MAX_PIXELS} pixels in all."
                )
        _within("imagine.scale", imagine.scale, 0.0, math.inf)
        _within("imagine.white_tolerance", imagine.white_tolerance, 0.0, 1.0)
        _within("hold.min_part", hold.min_part, 0.0, 1.0)
        _within("hold.rgb_factor", hold.rgb_factor, 0.0, math.inf)
        _within("hold.final_rate", hold.final_rate, 1e-6, 1.0)
        low, high = hold.opacity_range
        if not 0.0 <= low <= high <= 1.0:
            raise InputError(
                f"--pipeline.targets.hold.opacity-range is {low} {high}: give two values from 0 to 1, in order."
            )
        for strength in imagine.strengths:
            try:
                descent_timesteps(TIMESTEPS, imagine.sampling_steps, strength)
            except InputError as error:
                raise InputError(f"--pipeline.targets.imagine.strengths or sampling-steps: {error}") from error
        rounds = target_rounds(self, guidance)
        for earlier, later in pairwise(rounds):
            if later.begin < earlier.end:
                raise InputError(
                    f"{earlier.name} ends at step {earlier.end} and {later.name} begins at {later.begin}: change "
                    "--pipeline.targets.imagine.begin-step or --pipeline.targets.hold.begin-step."
                )


@dataclass(frozen=True)
class TargetRound:
    """Training steps that fit one bank of target views."""

    name: str
    """What it is called in messages and in the viewer."""
    label: str
    """What it is called where there is little room."""
    begin: int
    """First training step."""
    end: int
    """The step after the last one."""
    strength: float | None
    """Noise level at which the prior samples the views; None: the object's own renderings are kept."""
    views: int
    """Target views in the bank."""
    rays: int
    """Random pixels of a step."""
    image_size: int
    """Side of the target views in pixels."""
    rgb_factor: float = 1.0
    """Factor on the weight of the input view's colour."""
    final_rate: float = 1.0
    """Factor on the learning rate at the end."""

    @property
    def is_imagined(self) -> bool:
        """Whether the prior samples the views."""
        return self.strength is not None

    def rate_factor(self, step: int) -> float:
        """Factor on the learning rate at `step`: 1 at the beginning, falling exponentially to `final_rate`."""
        return self.final_rate ** ((step - self.begin) / (self.end - self.begin))


def target_rounds(config: TargetsConfig, guidance: DistillationConfig) -> tuple[TargetRound, ...]:
    """All rounds in the order of their steps; rounds of imagined views only where there is a prior to sample."""
    imagine, hold = config.imagine, config.hold
    imagines = imagine.steps > 0 and guidance.kind != "none"
    rounds = []
    for index, strength in enumerate(imagine.strengths if imagines else ()):
        begin = imagine.begin_step + index * imagine.steps
        name = f"imagined views, round {index + 1} of {len(imagine.strengths)}"
        sizes = (imagine.views, imagine.rays, imagine.image_size)
        rounds.append(TargetRound(name, f"round {index + 1}", begin, begin + imagine.steps, strength, *sizes))
    if hold.steps > 0:
        sizes = (hold.views, hold.rays, hold.image_size)
        end = hold.begin_step + hold.steps
        factors = (hold.rgb_factor, hold.final_rate)
        rounds.append(TargetRound("held views", "hold", hold.begin_step, end, None, *sizes, *factors))
    return tuple(sorted(rounds, key=lambda one: one.begin))


def round_at(rounds: Sequence[TargetRound], step: int) -> TargetRound | None:
    """The round that a training step belongs to, if any."""
    return next((one for one in rounds if one.begin <= step < one.end), None)


def making_options(config: TargetsConfig, current: TargetRound) -> dict[str, Any]:
    """The options, by name, that decide the target views of a round."""
    name, part = ("imagine", config.imagine) if current.is_imagined else ("hold", config.hold)
    others = {"steps", "begin_step", "strengths", "rays", "rgb_factor", "final_rate"}
    options = {f"{name}.{option}": value for option, value in vars(part).items() if option not in others}
    return options | ({"imagine.strengths": current.strength} if current.is_imagined else {})


def round_labels(rounds: Sequence[TargetRound], between: str) -> dict[int, str]:
    """Labels of the stages by their first step: the rounds, and `between` where none follows at once."""
    labels = {one.end: between for one in rounds}
    return labels | {one.begin: one.label for one in rounds}


def _within(option: str, value: float, least: float, greatest: float) -> None:
    """Raises: InputError: a value is out of range or not finite."""
    if not (least <= value <= greatest and math.isfinite(value)):
        limits = f"at least {least:g}" if math.isinf(greatest) else f"{least:.10g} to {greatest:.10g}"
        raise InputError(f"--pipeline.targets.{option.replace('_', '-')} is {value}: give {limits}.")
