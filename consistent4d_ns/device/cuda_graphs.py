"""Functions of tensors as CUDA graphs: one call starts hundreds of kernels without launching each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Tensors: TypeAlias = tuple[Tensor, ...]
Function: TypeAlias = Callable[..., Tensors]
ParameterFunction: TypeAlias = Callable[..., Tensors]
"""Its first argument are the parameters, [tensor, ...]."""
Signature: TypeAlias = tuple[tuple[torch.Size, torch.dtype], ...]

WARM_UP = 3
"""Warm-up calls before a capture, in which libraries choose their algorithms and allocate their workspaces."""


class Replayable(Protocol):
    """What `torch.cuda.CUDAGraph` is used for."""

    def replay(self) -> None:
        """Run what was recorded, reading and writing the memory that it was recorded with."""
        ...


@dataclass(frozen=True)
class Recording:
    """A recorded call."""

    graph: Replayable
    """Computes `outputs` from `inputs`."""
    inputs: Tensors
    """Memory that the graph reads."""
    outputs: Tensors
    """Memory that the graph writes; other recordings may use it in between."""

    def replay(self, inputs: Tensors) -> Tensors:
        """The function's values for other inputs of the same shapes, in memory of their own."""
        for static, given in zip(self.inputs, inputs, strict=True):
            static.copy_(given.detach(), non_blocking=True)
        self.graph.replay()
        return tuple(output.clone() for output in self.outputs)


@dataclass
class Turn:
    """Whose intermediate results are in the memory that recordings share."""

    holder: object = None
    """A forward pass whose backward pass has not been replayed yet."""


@dataclass(frozen=True)
class DifferentiableRecording:
    """A recorded call of a function that is differentiated in its parameters, and its backward pass.

    The backward pass belongs to the latest forward pass of all recordings that share their memory, and comes once.
    """

    forward: Recording
    """From inputs to outputs."""
    backward: Recording
    """From gradients of the differentiable outputs to those of the parameters, all in one list of numbers."""
    differentiable: tuple[bool, ...]
    """Which outputs have gradients."""
    shapes: tuple[torch.Size | None, ...]
    """Shapes of the parameters' gradients; None of parameters that the outputs do not depend on."""
    turn: Turn
    """Shared by all recordings with the same memory."""

    def replay(self, inputs: Tensors, parameters: Sequence[Tensor]) -> Tensors:
        """The function's values for other inputs of the same shapes, as results of the parameters."""
        return _Replay.apply(self, inputs, *parameters)  # pyright: ignore[reportReturnType]


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, recording: DifferentiableRecording, inputs: Tensors, *parameters: Tensor) -> Tensors:
        outputs = recording.forward.replay(inputs)
        ctx.recording, ctx.holder = recording, object()
        recording.turn.holder = ctx.holder
        flags = zip(outputs, recording.differentiable, strict=True)
        ctx.mark_non_differentiable(*(output for output, differentiable in flags if not differentiable))
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        recording: DifferentiableRecording = ctx.recording
        if recording.turn.holder is not ctx.holder:
            raise RuntimeError("the backward pass of a recorded call comes once, before the next call.")
        recording.turn.holder = None
        flags = zip(gradients, recording.differentiable, strict=True)
        upstream = tuple(gradient for gradient, differentiable in flags if differentiable)
        (numbers,) = recording.backward.replay(upstream)
        parts = iter(numbers.split([shape.numel() for shape in recording.shapes if shape is not None]))
        return None, None, *(None if shape is None else next(parts).view(shape) for shape in recording.shapes)


class Recorder:
    """Records calls into one memory pool, which they share and which is freed with the last of them."""

    def __init__(self) -> None:
        self._pool, self._turn = torch.cuda.graph_pool_handle(), Turn()

    def record(self, function: Function, inputs: Tensors) -> Recording:
        """Call `function` a few times, then once more to record it."""
        inputs = tuple(given.detach().clone() for given in inputs)
        with torch.cuda.device(inputs[0].device):
            self._warm_up(lambda: function(*inputs))
            graph = torch.cuda.CUDAGraph()
            with self._capture(graph):
                outputs = function(*inputs)
        return Recording(graph, inputs, outputs)

    def record_with_gradients(
        self, function: ParameterFunction, inputs: Tensors, parameters: Sequence[Tensor]
    ) -> DifferentiableRecording:
        """Call `function` and differentiate it a few times, then once more to record both.

        Args:
            function: Of the parameters and the inputs; what it returns may be part of an autograd graph.
            inputs: As of the call; they get no gradients.
            parameters: They must stay where they are.
        """
        inputs, leaves = tuple(given.detach().clone() for given in inputs), fresh_leaves(parameters)

        def differentiable(outputs: Tensors) -> Tensors:
            return tuple(output for output in outputs if output.requires_grad)

        def step() -> None:
            ends = differentiable(function(leaves, *inputs))
            parameter_gradients(ends, leaves, tuple(map(torch.zeros_like, ends)))

        with torch.cuda.device(inputs[0].device), torch.enable_grad():
            self._warm_up(step)
            forward, backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
            with self._capture(forward):
                outputs = function(leaves, *inputs)
            ends = differentiable(outputs)
            upstream = tuple(map(torch.zeros_like, ends))
            with self._capture(backward):
                numbers, shapes = parameter_gradients(ends, leaves, upstream)
        flags = tuple(output.requires_grad for output in outputs)
        first = Recording(forward, inputs, tuple(output.detach() for output in outputs))
        return DifferentiableRecording(first, Recording(backward, upstream, (numbers,)), flags, shapes, self._turn)

    def _warm_up(self, call: Callable[[], object]) -> None:
        torch.cuda.empty_cache()  # what is cached for one stream is of no use to another
        stream = _recording_stream(torch.cuda.current_device())
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                call()
        torch.cuda.current_stream().wait_stream(stream)

    def _capture(self, graph: torch.cuda.CUDAGraph) -> torch.cuda.graph:
        # Other threads, the viewer's and NCCL's, may go on using the device meanwhile.
        stream = _recording_stream(torch.cuda.current_device())
        return torch.cuda.graph(graph, self._pool, stream, capture_error_mode="thread_local")


def fresh_leaves(parameters: Sequence[Tensor]) -> Tensors:
    """The parameters, where they are, as other tensors to differentiate in.

    Where an autograd graph has used the parameters themselves and still exists, as that of the latest loss does, they
    belong to its stream, and one that is recorded on another would have to wait for it.
    """
    return tuple(parameter.detach().requires_grad_() for parameter in parameters)


def parameter_gradients(
    outputs: Tensors, parameters: Sequence[Tensor], upstream: Tensors
) -> tuple[Tensor, tuple[torch.Size | None, ...]]:
    """The parameters' gradients, one after the other in one list of numbers, and their shapes.

    Parameters that the outputs do not depend on are left out of the list, and None stands for their shapes.
    """
    gradients = torch.autograd.grad(outputs, parameters, upstream, allow_unused=True)
    numbers = torch.cat([gradient.flatten() for gradient in gradients if gradient is not None])
    return numbers, tuple(None if gradient is None else gradient.shape for gradient in gradients)


def repeat(step: Callable[[], None], count: int, device: torch.device) -> None:
    """Take a step so many times; on a CUDA device it is recorded the second time, and replayed.

    It must do the same every time, with the same memory, whatever the values are. The first time it may also allocate
    what it keeps, such as the moments of an optimiser, which has to be `capturable`.
    """
    if device.type != "cuda":
        for _ in range(count):
            step()
        return
    with torch.cuda.device(device):
        stream, current = _recording_stream(torch.cuda.current_device()), torch.cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            step()
        current.wait_stream(stream)
        if count == 1:
            return
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            step()
        for _ in range(count - 1):
            graph.replay()


@cache
def _recording_stream(device: int) -> torch.cuda.Stream:
    """One for all recordings: libraries keep a workspace for every stream that they ever saw."""
    return torch.cuda.Stream(device)


class Graphed:
    """A function that is recorded once for each combination of input shapes, and replayed from then on.

    The function takes tensors of one CUDA device, images first ([*, height, width]), and returns a tuple of tensors
    that are not part of an autograd graph. It must do the same whatever the values are: no random numbers, no shapes or
    branches that depend on values, nothing brought to or from the host. Other tensors that it reads, such as
    weights, must stay where they are; call `forget` when they are replaced. It may use autograd inside.

    Recordings are kept while the size of the images stays the same (they then differ in the number of views). A new
    size begins a new stage of training: earlier recordings and their memory are released.
    """

    def __init__(self, function: Function, enabled: bool, recorder: Callable[[], Recorder] = Recorder) -> None:
        """
        Args:
            function: What is recorded.
            enabled: Otherwise the function is simply called.
            recorder: Factory of recorders.
        """
        self._function = function
        self._enabled = enabled
        self._new_recorder = recorder
        self.forget()

    def forget(self) -> None:
        """Release all recordings."""
        self._recorder: Recorder | None = None
        self._image_size: torch.Size | None = None
        self._recordings: dict[Signature, Recording] = {}

    def __call__(self, *inputs: Tensor) -> Tensors:
        """The function's values."""
        if not self._enabled:
            return self._function(*inputs)
        signature = tuple((given.shape, given.dtype) for given in inputs)
        if signature not in self._recordings:
            self._recordings[signature] = self._record(inputs)
        return self._recordings[signature].replay(inputs)

    def _record(self, inputs: Tensors) -> Recording:
        size = inputs[0].shape[-2:]
        if self._recorder is None or size != self._image_size:
            self.forget()
            self._recorder, self._image_size = self._new_recorder(), size
        return self._recorder.record(self._function, inputs)
