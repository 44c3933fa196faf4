"""Training a network in half precision with float32 master weights, in slices that can be resumed."""

from __future__ import annotations

import json
import math
import pickle
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from consistent4d_ns.errors import InputError
from training.parallel import average

SAVE_EVERY = 1000
"""Steps between checkpoints."""
LARGEST_NORM = 1.0
"""Norm that gradients are clipped to."""
MOMENTUM = 0.95
"""Muon's momentum."""
SMALLEST_SIDE = 32
"""Matrices with a side below this are left to AdamW: orthogonality says little about them."""


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


def matrices(network: nn.Module) -> list[bool]:
    """Which parameters, in order, multiply features as a matrix or kernel of a size that Muon suits."""
    embeddings = {id(m.weight) for m in network.modules() if isinstance(m, nn.Embedding)}
    shapes = ((p, p.flatten(1).shape if p.ndim > 1 else (0,)) for p in network.parameters())
    return [min(shape) >= SMALLEST_SIDE and id(p) not in embeddings for p, shape in shapes]


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


def orthogonalised(matrices: Float[Tensor, "count rows columns"]) -> Float[Tensor, "count rows columns"]:
    """About U V^T of each matrix's singular value decomposition U S V^T, in bfloat16.

    Five iterations of the quintic of Newton and Schulz with the coefficients of Jordan et al. (2024), which bring all
    singular values of any size that matters to between 0.7 and 1.2.
    """
    x = matrices.bfloat16()
    wide = x.shape[1] <= x.shape[2]
    x = x if wide else x.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)) @ x
    return x if wide else x.mT


class Muon:
    """Descent along the orthogonalised momentum of each weight matrix (Jordan et al. 2024).

    Kernels count as matrices of one row per output channel. Updates have AdamW's usual size, 0.2 of the learning rate
    for each entry (Liu et al. 2025), so that both can share a learning rate. Matrices of one shape are updated
    together: one by one, as `torch.optim.Muon` does, a small network's step is bound by kernel launches.
    """

    def __init__(self, masters: Sequence[Tensor], weight_decay: float) -> None:
        """
        Args:
            masters: float32 tensors with at least two axes; they come to share memory with those of the same shape.
            weight_decay: Share of the weights that is subtracted at a learning rate of 1.
        """
        self.weight_decay = weight_decay
        shapes = sorted({tuple(master.flatten(1).shape) for master in masters})
        self.groups = [[m for m in masters if tuple(m.flatten(1).shape) == shape] for shape in shapes]
        self.stacks = [torch.stack([m.flatten(1) for m in group]) for group in self.groups]
        self.momenta = [torch.zeros_like(stack) for stack in self.stacks]
        for group, stack in zip(self.groups, self.stacks, strict=True):
            for master, part in zip(group, stack, strict=True):
                master.data = part.view(master.shape)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One step with the gradients of the masters, all of which must have one."""
        for group, stack, momentum in zip(self.groups, self.stacks, self.momenta, strict=True):
            gradient = torch.stack([m.grad.flatten(1) for m in group if m.grad is not None])
            momentum.lerp_(gradient, 1 - MOMENTUM)
            update = orthogonalised(gradient.lerp_(momentum, MOMENTUM))
            stack.mul_(1 - rate * self.weight_decay)
            stack.add_(update, alpha=-0.2 * rate * math.sqrt(max(stack.shape[1:])))


class Optimiser:
    """Muon or AdamW on float32 copies of a network's parameters, and a running average of them.

    The network keeps its own precision; after each step the copies are written back to it.
    """

    def __init__(self, network: nn.Module, weight_decay: float, decay: float, muon: bool = False) -> None:
        """
        Args:
            network: On its device, in its precision.
            weight_decay: For weight matrices and kernels.
            decay: Decay of the running average; lower during the first steps.
            muon: Use Muon for weight matrices and kernels rather than AdamW for everything.
        """
        self.network = network
        self.decay = decay
        self.steps = 0
        self.parameters: list[Tensor] = list(network.parameters())
        self.masters = [parameter.detach().float().clone() for parameter in self.parameters]
        self.averages = [master.clone() for master in self.masters]
        suited = matrices(network) if muon else [False] * len(self.masters)
        self.muon = Muon([m for m, suits in zip(self.masters, suited, strict=True) if suits], weight_decay)
        others = [m for m, suits in zip(self.masters, suited, strict=True) if not suits]
        groups = [
            {"params": [m for m in others if m.ndim > 1], "weight_decay": weight_decay},
            {"params": [m for m in others if m.ndim <= 1], "weight_decay": 0.0},
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
        self.muon.step(rate)
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
        torch.save(state | {"adam": self.adam.state_dict(), "muon": self.muon.momenta}, unfinished)
        unfinished.replace(path)

    def load(self, path: Path) -> None:
        """Resume from a checkpoint written by `save`.

        Raises:
            InputError: The file is missing or damaged, or belongs to another network.
        """
        state = load_state(path, self.parameters)
        self.steps = state["steps"]
        torch._foreach_copy_(self.masters, state["masters"])
        torch._foreach_copy_(self.averages, state["averages"])
        self.adam.load_state_dict(state["adam"])
        for momentum, saved in zip(self.muon.momenta, state["muon"], strict=True):
            momentum.copy_(saved)
        self._hand_over(self.masters)


def load_state(path: Path, parameters: Sequence[Tensor]) -> dict[str, Any]:
    """A checkpoint written by `Optimiser.save`, on the device of the network's parameters.

    Raises:
        InputError: The file is missing or damaged, or belongs to another network.
    """
    try:
        state = torch.load(path, map_location=parameters[0].device, weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        reason = str(error).split("\n", 1)[0]
        raise InputError(f"{path}: not a readable state of a training ({reason}); train first.") from error
    if [tuple(m.shape) for m in state["masters"]] != [tuple(p.shape) for p in parameters]:
        raise InputError(f"{path}: was written for another network; move it away to start anew.")
    return state


@torch.no_grad()
def load_averages(network: nn.Module, path: Path) -> None:
    """Give a network the averaged parameters of a checkpoint.

    Raises:
        InputError: The file is missing or damaged, or belongs to another network.
    """
    parameters: list[Tensor] = list(network.parameters())
    torch._foreach_copy_(parameters, load_state(path, parameters)["averages"])


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
