"""Training a network in half precision with float32 master weights, in slices that can be resumed."""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from consistent4d_ns.errors import InputError
from training.parallel import average

SAVE_EVERY = 1000
"""Steps between checkpoints."""
LARGEST_NORM = 1.0
"""Norm that gradients are clipped to."""


def learning_rate(step: int, peak: float, warm_up: int, left: float, cool_down: float) -> float:
    """Linear rise, then `peak`, then linear fall to 0.

    Args:
        step: Training step, 0-based.
        peak: Maximum rate.
        warm_up: Steps of the rise.
        left: Remaining fraction of the training, from 1 to 0.
        cool_down: Share of the training over which the rate falls, above 0.
    """
    return peak * min(1.0, (step + 1) / max(warm_up, 1), max(0.0, left) / cool_down)


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
    """Enable process-wide settings that speed up training (figures in README.md)."""
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True


class Optimiser:
    """AdamW on float32 copies of a network's parameters, and a running average of them.

    The network keeps its own precision; after each step the copies are written back to it.
    """

    def __init__(self, network: nn.Module, weight_decay: float, decay: float) -> None:
        """
        Args:
            network: On its device, in its precision.
            weight_decay: AdamW's, for weight matrices and kernels.
            decay: Decay of the running average; lower during the first steps.
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
        """Perform one step with the network's gradients, which are then cleared.

        Args:
            rate: Learning rate.

        Returns:
            Norm of the gradient; one that is not finite counts as no gradient.
        """
        trained = [(m, p.grad) for m, p in zip(self.masters, self.parameters, strict=True) if p.grad is not None]
        gradients = [gradient for _, gradient in trained]
        average(gradients)
        norm = torch.nn.utils.get_total_norm(gradients).float()
        # No `if`, which would synchronise with the GPU.
        scale = torch.where(norm.isfinite(), (LARGEST_NORM / norm).clamp(max=1.0), torch.zeros_like(norm))
        for master, gradient in trained:
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
        """Replace the network's parameters by their averages, permanently."""
        self._hand_over(self.averages)

    @torch.no_grad()
    def _hand_over(self, values: list[Tensor]) -> None:
        torch._foreach_copy_(self.parameters, values)

    def save(self, path: Path) -> None:
        """Write a checkpoint, atomically."""
        state = {"steps": self.steps, "masters": self.masters, "averages": self.averages}
        unfinished = path.with_suffix(".part")
        torch.save(state | {"adam": self.adam.state_dict()}, unfinished)
        unfinished.replace(path)

    def load(self, path: Path) -> None:
        """Resume from a checkpoint written by `save`.

        Raises:
            InputError: The file is missing or damaged, or belongs to another network.
        """
        try:
            state = torch.load(path, map_location=self.masters[0].device, weights_only=True)
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            reason = str(error).split("\n", 1)[0]
            raise InputError(f"{path}: not a readable state of a training ({reason}); train first.") from error
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
        plain = {name: value.item() if isinstance(value, Tensor) else value for name, value in figures.items()}
        line = json.dumps(plain | {"seconds": round(self.seconds, 1)})
        print(line, flush=True)
        with self.path.open("a") as file:
            file.write(line + "\n")
