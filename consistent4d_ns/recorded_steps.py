"""What a training step renders, replayed from CUDA graphs: rays, samples, the field, compositing and loss terms.

A step has two recordings. The first makes rays and pictures, and counts the samples. The second renders as many samples
as it has room for. The number of samples is read on the host while the device already works on the second, so that
neither waits for the other; where not all of them fitted, what was rendered is dropped and rendered again.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Int64
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor, nn
from torch.func import functional_call

from consistent4d_ns.data.cameras import OrbitViews
from consistent4d_ns.data.planning import StepKind, StepPlan
from consistent4d_ns.device.cuda import fetch
from consistent4d_ns.device.cuda_graphs import DifferentiableRecording, Recorder, Recording, Tensors
from consistent4d_ns.draws import RenderDraws
from consistent4d_ns.model import Consistent4DModel
from consistent4d_ns.rendering.losses import peak_signal_noise_ratio
from consistent4d_ns.rendering.terms import rendering_terms

Batch: TypeAlias = Callable[[StepPlan, "Tensor | None"], tuple[RayBundle, dict[str, Any]]]
"""Rays and batch of a plan and its pixels."""

PICTURES = ("image", "alpha", "judged")
"""What a batch may say about the rays."""
HEADROOM = 1.05
"""Room for samples over the number that was found."""
GROWTH = 1.2
"""Ratio of successive amounts of room."""
WINDOW = 200
"""Steps after which room that none of them needed is given up."""
MOST_SAMPLES = 1 << 20
"""Most samples, of all levels together, that are recorded: with more, launches take little of a step, and memory that
recordings hold would matter."""
MOST_RECORDINGS = 8
"""Signatures whose recordings are kept; a stage of training has two or three."""


@dataclass(frozen=True)
class RenderedStep:
    """What the rest of a training step needs of its rendering."""

    rgb: Float[Tensor, "levels rays 3"]
    """Colour on white."""
    terms: dict[str, Tensor]
    """Unweighted loss terms of the rendering, by name."""
    metrics: dict[str, Tensor]
    """Those of `Consistent4DModel.get_metrics_dict`."""


@dataclass
class Capacity:
    """Room for samples: it grows at once when it is too small, and shrinks where `WINDOW` steps need less."""

    size: int = 0
    """Samples that there is room for."""
    largest: int = 0
    """Most samples of the steps that were looked at since the last change."""
    steps: int = 0
    """Their number."""

    def follow(self, count: int) -> bool:
        """Take note of a step with `count` samples; whether the size has changed, as it does when they do not fit."""
        self.largest, self.steps = max(self.largest, count), self.steps + 1
        wanted = roomy(self.largest)
        if count <= self.size and (self.steps < WINDOW or wanted * GROWTH > self.size):
            if self.steps >= WINDOW:
                self.largest = self.steps = 0
            return False
        self.size, self.largest, self.steps = wanted, 0, 0
        return True


def roomy(count: int) -> int:
    """Room for `count` samples and a few more: one of few sizes, each about `GROWTH` times the one before."""
    needed = max(1024.0, HEADROOM * count)
    return math.ceil(GROWTH ** math.ceil(math.log(needed, GROWTH)) / 256) * 256


@dataclass
class _Recorded:
    """The recordings of one signature."""

    rays: Recording
    """From a step's draws to the number of samples, rays and pictures."""
    rendering: DifferentiableRecording | None = None
    """From rays, pictures and draws to colours, terms, mean opacity, and PSNR of the input view."""
    capacity: Capacity = field(default_factory=Capacity)
    """Samples that the rendering has room for."""
    names: tuple[str, ...] = ()
    """Names of the terms."""


class _WithField(nn.Module):
    """A function that uses a field, whose parameters `functional_call` replaces meanwhile."""

    def __init__(self, field: nn.Module, function: Callable[..., Tensors]) -> None:
        super().__init__()
        self.field, self.function = field, function

    def forward(self, *inputs: Tensor) -> Tensors:
        return self.function(*inputs)


class RecordedSteps:
    """Renders training steps from recordings, which it makes when a step of a new signature comes.

    The signature is all that a recording takes for granted beside the model's configuration: kind and sizes of the
    step, and where in memory parameters, the occupancy grid and what batches are made from lie. Everything else is
    copied in.
    """

    def __init__(self, model: Consistent4DModel, recorder: Callable[[], Recorder] = Recorder) -> None:
        """
        Args:
            model: The object, on a CUDA device.
            recorder: Factory of recorders.
        """
        self._model, self._new_recorder = model, recorder
        self._parameters = dict(model.field.named_parameters(prefix="field"))
        self._recorder: Recorder | None = None
        self._recorded: OrderedDict[Hashable, _Recorded] = OrderedDict()

    def __deepcopy__(self, memo: dict[int, Any]) -> RecordedSteps:
        """For a copy of the model, without recordings."""
        return RecordedSteps(memo.get(id(self._model), self._model), self._new_recorder)

    def render(
        self,
        plan: StepPlan,
        pixels: Int64[Tensor, " rays"] | None,
        draws: RenderDraws,
        batch: Batch,
        sources: Iterable[Tensor],
    ) -> RenderedStep | None:
        """What a step renders; None if it has too many samples to be recorded.

        Its backward pass comes once, before the next step is rendered.

        Args:
            plan: Frames and cameras.
            pixels: Which pixels are rendered; None: all.
            draws: Random draws of the rendering.
            batch: Makes rays and batch of the plan, as a recordable function of the plan's tensors and the pixels.
            sources: Tensors that `batch` reads beside.
        """
        step = tuple(t for t in (plan.frames, plan.times, plan.views.stacked(), draws.jitter, pixels) if t is not None)
        signature = self._signature(plan, step, draws, sources)
        recorded = self._recorded.get(signature)
        if recorded is None:
            recorded = self._recorded[signature] = _Recorded(self._record_rays(plan, step, batch))
        self._recorded.move_to_end(signature)
        if len(self._recorded) > MOST_RECORDINGS:
            self._recorded.popitem(last=False)

        number, *rays = recorded.rays.replay(step)
        inputs = (draws.jitter, draws.normal_offsets, *rays)
        count, outputs = fetch(number), self._replay(recorded, inputs)  # in this order: the device is kept busy
        samples = int(count())
        if samples * self._model.field.num_levels > MOST_SAMPLES:
            return None
        if recorded.capacity.follow(samples) or outputs is None:
            self._record_rendering(recorded, plan, inputs)  # in the memory of the one before
            outputs = self._replay(recorded, inputs)
        assert outputs is not None
        rgb, terms, opacity, *psnr = outputs
        metrics = self._model.sampling_figures(samples, plan.num_rays) | {"opacity": opacity}
        metrics |= dict(zip(("psnr",), psnr, strict=False))
        return RenderedStep(rgb, dict(zip(recorded.names, terms.unbind(), strict=True)), metrics)

    def _signature(
        self, plan: StepPlan, step: Tensors, draws: RenderDraws, sources: Iterable[Tensor]
    ) -> tuple[Hashable, ...]:
        model = self._model
        kind = StepKind.INDEPENDENT if plan.kind.is_distilled else plan.kind  # these are rendered alike
        shapes = tuple(tensor.shape for tensor in (*step, draws.normal_offsets))
        places = tuple(t.data_ptr() for t in (*self._parameters.values(), model.occupancy.occupied, *sources))
        return kind, plan.image_size, plan.random_pixels, self._needs_normals(plan), shapes, places

    def _needs_normals(self, plan: StepPlan) -> bool:
        return self._model.config.loss_weights.needs_normals(plan.step)

    def _replay(self, recorded: _Recorded, inputs: Tensors) -> Tensors | None:
        if recorded.rendering is None:
            return None
        return recorded.rendering.replay(inputs, tuple(self._parameters.values()))

    def _record_rays(self, plan: StepPlan, step: Tensors, batch: Batch) -> Recording:
        def make(frames: Tensor, times: Tensor, views: Tensor, jitter: Tensor, pixels: Tensor | None = None) -> Tensors:
            here = replace(plan, frames=frames, times=times, views=OrbitViews(*views))
            rays, pictures = batch(here, pixels)
            assert rays.times is not None
            number = self._model.occupancy.count(rays.origins, rays.directions, jitter)
            shown = (pictures[name] for name in PICTURES if name in pictures)
            return number, rays.origins, rays.directions, rays.times, *shown

        return self._record_into_pool().record(make, tuple(t.to(self._model.device) for t in step))

    def _record_rendering(self, recorded: _Recorded, plan: StepPlan, inputs: Tensors) -> None:
        model, capacity = self._model, recorded.capacity.size

        def render(
            jitter: Tensor, offsets: Tensor, origins: Tensor, directions: Tensor, times: Tensor, *shown: Tensor
        ) -> Tensors:
            rays = RayBundle(origins, directions, pixel_area=torch.zeros_like(times), times=times)
            rendering = model.render(rays, RenderDraws(jitter, offsets), self._needs_normals(plan), capacity)
            batch = {"plan": plan, **dict(zip(PICTURES, shown, strict=False))}
            terms = rendering_terms(rendering, batch, model.config.loss_weights)
            recorded.names = tuple(terms)
            values = torch.stack(list(terms.values())) if terms else rendering.rgb.new_zeros(0)
            psnr = []
            if plan.kind is StepKind.REFERENCE:
                psnr.append(peak_signal_noise_ratio(rendering.rgb[-1].detach(), batch["image"]))
            return rendering.rgb, values, rendering.mean_opacity, *psnr

        own, step = self._parameters, _WithField(model.field, render)

        def render_with(parameters: Tensors, *inputs: Tensor) -> Tensors:
            return functional_call(step, dict(zip(own, parameters, strict=True)), inputs)

        recorded.rendering = self._record_into_pool().record_with_gradients(render_with, inputs, tuple(own.values()))

    def _record_into_pool(self) -> Recorder:
        """The recorder of all, made when it is first used."""
        if self._recorder is None:
            self._recorder = self._new_recorder()
        return self._recorder
