"""Training a network in half precision with masters in full precision, in slices that can be resumed."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from consistent4d_ns.errors import InputError
from training.parallel import average

LARGEST_NORM = 1.0
"""Gradients with a greater norm are scaled down to it."""


def learning_rate(step: int, peak: float, total: int, warm_up: int, cool_down: int) -> float:
    """Linear rise over `warm_up` steps, then `peak`, then linear fall to 0 over the last `cool_down` of `total`."""
    return peak * min(1.0, (step + 1) / warm_up, max(0.0, (total - step) / cool_down))


Network = TypeVar("Network", bound=nn.Module)


def training_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on a GPU, float32 elsewhere."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def on_device(network: Network, device: torch.device) -> Network:
    """The network on its device, in the precision that it is trained in."""
    # Not `network.to`: diffusers' override warns about changes of precision.
    nn.Module.to(network, device, training_dtype(device))
    return network


def prepare_for_speed() -> None:
    """Settings of this process that training gains from (docs/prior.md)."""
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True


class Optimiser:
    """AdamW on float32 copies of a network's parameters, and a running average of them.

    The network itself keeps whatever precision it has; after each step it is given the copies.
    """

    def __init__(self, network: nn.Module, weight_decay: float, decay: float) -> None:
        """
        Args:
            network: On its device, in its precision.
            weight_decay: AdamW's, for weight matrices and kernels.
            decay: How slowly the average moves; it moves faster at first.
        """
        self.network = network
        self.decay = decay
        self.steps = 0
        self.parameters: list[Tensor] = list(network.parameters())
        self.masters = [parameter.detach().float().clone() for parameter in self.parameters]
        self.averages = [master.clone() for master in self.masters]
        groups = [
            {"params": [m for m in self.masters if m.ndim > 1], "weight_decay": weight_decay},
            {"params": [m for m in self.masters if m.ndim <= 1], "weight_decay": 0.0},
        ]
        fused = self.masters[0].is_cuda
        self.adam = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.99), fused=fused)

    def step(self, rate: float) -> Tensor:
        """One step with the gradients that lie in the network, which are then dropped.

        Args:
            rate: Learning rate.

        Returns:
            Norm of the gradient; where it is not finite, nothing was learned.
        """
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        average(gradients)
        norm = torch.nn.utils.get_total_norm(gradients).float()
        # Without waiting for the GPU: a gradient that is not finite counts as none.
        scale = torch.where(norm.isfinite(), (LARGEST_NORM / norm).clamp(max=1.0), torch.zeros_like(norm))
        for master, gradient in zip(self.masters, gradients):
            master.grad = torch.nan_to_num(gradient.float(), 0.0, 0.0, 0.0) * scale
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.step()
        self.steps += 1
        torch._foreach_lerp_(self.averages, self.masters, 1 - min(self.decay, self.steps / (10 + self.steps)))
        self._hand_over(self.masters)
        self.network.zero_grad(set_to_none=True)
        return norm

    def use_averages(self) -> None:
        """Give the network the averaged parameters, for good."""
        self._hand_over(self.averages)

    @torch.no_grad()
    def _hand_over(self, values: list[Tensor]) -> None:
        torch._foreach_copy_(self.parameters, values)

    def save(self, path: Path) -> None:
        """Write all that is needed to go on, in one step."""
        state = {"steps": self.steps, "masters": self.masters, "averages": self.averages}
        unfinished = path.with_suffix(".part")
        torch.save(state | {"adam": self.adam.state_dict()}, unfinished)
        unfinished.replace(path)

    def load(self, path: Path) -> None:
        """Go on where `save` left off.

        Raises:
            InputError: The file belongs to another network.
        """
        state = torch.load(path, map_location=self.masters[0].device, weights_only=True)
        if [tuple(m.shape) for m in state["masters"]] != [tuple(m.shape) for m in self.masters]:
            raise InputError(f"{path}: was written for another network; move it away to start anew.")
        self.steps = state["steps"]
        torch._foreach_copy_(self.masters, state["masters"])
        torch._foreach_copy_(self.averages, state["averages"])
        self.adam.load_state_dict(state["adam"])
        self._hand_over(self.masters)


class Journal:
    """Figures of a training as lines of JSON, written by one process only."""

    def __init__(self, path: Path, active: bool) -> None:
        self.path = path if active else None
        self.begin = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since this slice of the training began."""
        return time.monotonic() - self.begin

    def write(self, figures: Mapping[str, Any]) -> None:
        """Append and print a line; tensors are read here."""
        if self.path is None:
            return
        plain = {name: float(value) if isinstance(value, Tensor) else value for name, value in figures.items()}
        line = json.dumps(plain | {"seconds": round(self.seconds, 1)})
        print(line, flush=True)
        with self.path.open("a") as file:
            file.write(line + "\n")
