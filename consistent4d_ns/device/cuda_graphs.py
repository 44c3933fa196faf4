"""Functions of tensors as CUDA graphs: one call starts hundreds of kernels without launching each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

Tensors: TypeAlias = tuple[Tensor, ...]
Function: TypeAlias = Callable[..., Tensors]
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


class Recorder:
    """Records calls into one memory pool, which they share and which is freed with the last of them."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, function: Function, inputs: Tensors) -> Recording:
        """Call `function` a few times, then once more to record it."""
        inputs = tuple(given.detach().clone() for given in inputs)
        with torch.cuda.device(inputs[0].device):
            torch.cuda.empty_cache()  # what is cached for one stream is of no use to another
            stream = _recording_stream(inputs[0].device)
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    function(*inputs)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            # Other threads, the viewer's and NCCL's, may go on using the device meanwhile.
            with torch.cuda.graph(graph, self._pool, stream, capture_error_mode="thread_local"):
                outputs = function(*inputs)
        return Recording(graph, inputs, outputs)


@cache
def _recording_stream(device: torch.device) -> torch.cuda.Stream:
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
