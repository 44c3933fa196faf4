"""A recorder that computes where CUDA would replay: from fixed memory to fixed memory, by a call of the function."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from consistent4d_ns.device.cuda_graphs import (
    DifferentiableRecording,
    Function,
    ParameterFunction,
    Recorder,
    Recording,
    Tensors,
    Turn,
    fresh_leaves,
    parameter_gradients,
)


class Recomputing(Recorder):
    """Stands in for `Recorder` on the CPU."""

    def __init__(self) -> None:
        self._turn = Turn()
        self.recorded: list[torch.Size] = []
        """Shape of the first input of each recording."""

    def record(self, function: Function, inputs: Tensors) -> Recording:
        self.recorded.append(inputs[0].shape)
        inputs = tuple(given.detach().clone() for given in inputs)
        outputs = tuple(output.clone() for output in function(*inputs))

        class Graph:
            def replay(self) -> None:
                write(outputs, function(*inputs))

        return Recording(Graph(), inputs, outputs)

    def record_with_gradients(
        self, function: ParameterFunction, inputs: Tensors, parameters: Sequence[Tensor]
    ) -> DifferentiableRecording:
        self.recorded.append(inputs[0].shape)
        inputs, leaves = tuple(given.detach().clone() for given in inputs), fresh_leaves(parameters)
        with torch.enable_grad():
            current = function(leaves, *inputs)
        flags = tuple(output.requires_grad for output in current)
        outputs = tuple(output.detach().clone() for output in current)
        upstream = tuple(torch.zeros_like(output) for output in current if output.requires_grad)
        numbers, shapes = parameter_gradients(ends(current), leaves, upstream)

        class Forward:
            def replay(self) -> None:
                nonlocal current
                with torch.enable_grad():
                    current = function(leaves, *inputs)
                write(outputs, current)

        class Backward:
            def replay(self) -> None:
                write((numbers,), parameter_gradients(ends(current), leaves, upstream)[:1])

        forward, backward = Recording(Forward(), inputs, outputs), Recording(Backward(), upstream, (numbers,))
        return DifferentiableRecording(forward, backward, flags, shapes, self._turn)


def ends(outputs: Tensors) -> Tensors:
    """The outputs that are part of an autograd graph."""
    return tuple(output for output in outputs if output.requires_grad)


def write(memory: Tensors, values: Tensors) -> None:
    """Write values to where earlier ones were."""
    with torch.no_grad():
        for place, value in zip(memory, values, strict=True):
            place.copy_(value)
