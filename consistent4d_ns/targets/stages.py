"""The stages of a training that fit target views: the round that a step belongs to, and the bank that it fits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from jaxtyping import Int64
from nerfstudio.utils.comms import is_main_process
from torch import Tensor

from consistent4d_ns.data.datamanager import Consistent4DDataManager
from consistent4d_ns.data.planning import StepPlan
from consistent4d_ns.device.cuda import return_unused_memory
from consistent4d_ns.draws import step_generator
from consistent4d_ns.guidance.base import Guidance, ViewSampler
from consistent4d_ns.guidance.config import DistillationConfig
from consistent4d_ns.messages import say
from consistent4d_ns.model import Consistent4DModel
from consistent4d_ns.targets.bank import TargetBank, bank_from_state
from consistent4d_ns.targets.config import TargetRound, TargetsConfig, making_options, round_at, target_rounds
from consistent4d_ns.targets.hull import hull_of_cells
from consistent4d_ns.targets.making import held_bank, imagined_bank, rendered
from consistent4d_ns.targets.planning import Moments, draw_moments, plan_targets

SECONDS_BETWEEN_LINES = 5.0
"""Least time between two lines that say how many target views are made."""


class TargetStages:
    """Makes a bank of target views when a round begins, plans the steps that fit it, and frees it after the round.

    `bank` holds the target views of the current round, if there is one: all that is state here. The limit of the
    model's occupancy grid follows from it.
    """

    def __init__(
        self, config: TargetsConfig, guidance: DistillationConfig, data: Consistent4DDataManager, seed: int
    ) -> None:
        """
        Args:
            config: When target views are made, and how.
            guidance: Which prior they are sampled from.
            data: The frames, and where cameras may be.
            seed: Decides all draws. It is the same in all processes, so that all make the same views.
        """
        self.config, self._data, self._seed = config, data, seed
        self.rounds = target_rounds(config, guidance)
        self.bank: TargetBank | None = None
        self._made_with: dict[str, Any] = {}
        """The options that decided `bank`."""
        self.making: TargetRound | None = None
        """The round whose views are being made; also after an error meanwhile."""
        self.seconds_making = 0.0
        """Time that making target views has taken so far."""

    def plan(self, step: int, model: Consistent4DModel, prior: Guidance | None, paused: bool) -> StepPlan | None:
        """What `step` fits of the target views; None outside of all rounds. The first step of a round makes them.

        While views are held, nothing is rendered outside of their visual hull: specks that no held view shows vanish.

        Args:
            step: Training step, 0-based.
            model: The object, of which views are rendered.
            prior: What views are sampled from.
            paused: Whether distillation is paused. Then imagined views are not fitted either, because they come from
                the prior; held ones are.
        """
        current, grid = round_at(self.rounds, step), model.occupancy
        if current is None or current.is_imagined:
            grid.limit(None)
        if current is None:
            self.bank = None
            return None
        if paused and current.is_imagined:
            return None
        if self.bank is None or self.bank.begin != current.begin:
            self.bank = None  # not beside the new one
            begin = time.monotonic()
            self.making = current
            self.bank = self.make(current, model, prior)
            self.making = None
            self._made_with = making_options(self.config, current)
            self.seconds_making += time.monotonic() - begin
        if not current.is_imagined and grid.bounds is None:  # also when training is resumed
            grid.limit(hull_of_cells(self.bank, grid))
        return plan_targets(step, self.bank.moments, self.bank.image_size, current.rays)

    def make(self, current: TargetRound, model: Consistent4DModel, prior: Guidance | None) -> TargetBank:
        """The target views of a round, of the object as it is now."""
        data, config = self._data, self.config
        if is_main_process():
            say(f"Making {current.views} target views: {current.name}.")
        generator = step_generator(self._seed, current.begin, "target views", "cpu")
        moments = draw_moments(data.config.plan, current.views, data.frame_times, data.input_view, generator)
        render = partial(rendered, model)
        if not current.is_imagined:
            return held_bank(config.hold, current, moments, render, with_progress)
        assert isinstance(prior, ViewSampler)
        noise = step_generator(self._seed, current.begin, "target noise", "cpu")
        bank = imagined_bank(config.imagine, current, moments, prior, data.input_view, render, noise, with_progress)
        return_unused_memory()  # sampling takes more than training steps
        return bank

    def batch(self, pixels: Int64[Tensor, " rays"]) -> dict[str, Tensor]:
        """What some pixels of the current round's views are to show (see `TargetBank.batch`)."""
        assert self.bank is not None
        return self.bank.batch(pixels)

    @property
    def images(self) -> tuple[Tensor, ...]:
        """All that `batch` reads."""
        assert self.bank is not None
        return self.bank.images

    def rate_factor(self, step: int) -> float:
        """Factor on the learning rate at training step `step`."""
        current = round_at(self.rounds, step)
        return 1.0 if current is None else current.rate_factor(step)

    def rgb_factor(self, step: int) -> float:
        """Factor on the weight of the input view's colour at training step `step`."""
        current = round_at(self.rounds, step)
        return 1.0 if current is None else current.rgb_factor

    def samples_after(self, step: int) -> bool:
        """Whether a step after `step` may sample views from the prior."""
        return any(one.is_imagined and step + 1 < one.end for one in self.rounds)

    def state_after(self, step: int) -> dict[str, Any] | None:
        """The target views as values for a checkpoint after `step`; None if the next step fits none of them."""
        following = round_at(self.rounds, step + 1)
        if self.bank is None or following is None or self.bank.begin != following.begin:
            return None
        return self.bank.state_dict() | {"options": self._made_with}

    def load(self, state: dict[str, Any] | None, device: torch.device | str) -> None:
        """Take up target views from `state_after`, and say so if options have changed that decide them.

        Raises:
            LookupError: something is missing from them.
        """
        self.bank = None if state is None else bank_from_state(state, device)
        self._made_with = {} if state is None else state.get("options", {})  # Earlier versions stored none.
        current = None if self.bank is None else round_at(self.rounds, self.bank.begin)
        if self.bank is None or current is None or current.begin != self.bank.begin:
            return
        options = making_options(self.config, current)
        changed = [name for name, value in self._made_with.items() if name in options and options[name] != value]
        if changed and is_main_process():
            names = ", ".join(f"targets.{name.replace('_', '-')}" for name in changed)
            say(f"The stored target views are kept until step {current.end} ({current.name}), without the new {names}.")


def with_progress(parts: list[Moments]) -> Iterator[Moments]:
    """Yield parts of a bank; the main process says from time to time how many views are done."""
    total, done, said = sum(map(len, parts)), 0, time.monotonic()
    for part in parts:
        yield part
        done += len(part)
        if is_main_process() and time.monotonic() - said >= SECONDS_BETWEEN_LINES:
            say(f"Target views: {done} of {total} made.")
            said = time.monotonic()
