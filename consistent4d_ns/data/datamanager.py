"""Data manager: frames on the training device, planned cameras, and whole images for evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Float16, Int64
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager, VanillaDataManagerConfig
from nerfstudio.data.utils.dataloaders import FixedIndicesEvalDataloader, RandIndicesEvalDataloader
from torch import Tensor

from consistent4d_ns.data.cameras import OrbitViews
from consistent4d_ns.data.dataparser import FrameSequence, FrameSequenceDataParserConfig, ObjectDataParserConfig
from consistent4d_ns.data.dataset import FrameDataset
from consistent4d_ns.data.images import composite_white, locate_pixels, resized
from consistent4d_ns.data.orbit import Orbit
from consistent4d_ns.data.planning import PlanConfig, StepKind, StepPlan, plan_step, reference_plan
from consistent4d_ns.data.rays import scattered_rays, view_rays
from consistent4d_ns.data.times import FrameTimes
from consistent4d_ns.draws import draw_pixels, step_generator
from consistent4d_ns.errors import InputError

ALL_KINDS = frozenset(StepKind)
RESIZED_AT_ONCE = 32
"""Frames that are resized together, in float32."""


@dataclass
class Consistent4DDataManagerConfig(VanillaDataManagerConfig):
    """Which frames and cameras training sees."""

    _target: type = field(default_factory=lambda: Consistent4DDataManager)
    """Class to instantiate."""
    dataparser: ObjectDataParserConfig = field(default_factory=FrameSequenceDataParserConfig)
    """The frame sequence, or the cameras around an object without frames."""
    plan: PlanConfig = field(default_factory=PlanConfig)
    """Which frames and cameras training steps see."""


class Consistent4DDataManager(VanillaDataManager[FrameDataset]):
    """A batch is one or more whole images, of the input view or of novel views, or random pixels of them.

    All frames stay in one tensor on the training device (float16; 32, 300 or 1000 frames at 256 pixels take 17, 157 or
    524 MB); where random pixels are fitted at another size, they are kept at that size too. A batch is a dictionary
    with its `plan` and, for the input view, `image` [rays, 3] on white and the soft mask `alpha` [rays].
    """

    config: Consistent4DDataManagerConfig
    train_dataset: FrameDataset
    eval_dataset: FrameDataset
    dataparser: FrameSequence | Orbit

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As Nerfstudio's. Raises: InputError: `ns-render dataset` asks for the frames, and there are none."""
        super().__init__(*args, **kwargs)
        if self.test_mode != "inference" and not hasattr(self, "frames"):  # That command alone skips `setup_train`.
            self.check_frames("`ns-render dataset`")

    def setup_train(self) -> None:
        """Copy the frames to the training device.

        Raises:
            InputError: the plan's options contradict each other, or a frame cannot be used.
        """
        self.config.plan.check()
        self.seed = torch.initial_seed()
        self.rays_per_batch = self.config.plan.reference_rays or self.config.plan.reference_size(0) ** 2
        self.frames: Float16[Tensor, "frames 4 size size"] = self.train_dataset.rgba.to(self.device)
        self._resized_frames = self.frames

    def setup_eval(self) -> None:
        """Loaders of whole images: in order for `ns-eval`, at random for the training log."""
        options: dict[str, Any] = {"input_dataset": self.eval_dataset, "device": self.device}
        self.fixed_indices_eval_dataloader = FixedIndicesEvalDataloader(**options)
        self._eval_images = 0
        self.eval_dataloader = RandIndicesEvalDataloader(**options)

    @cached_property
    def input_view(self) -> OrbitViews:
        """The input camera, one view."""
        return self.train_dataparser_outputs.metadata["input_view"]

    @cached_property
    def frame_times(self) -> FrameTimes:
        """When the frames were filmed."""
        return self.train_dataparser_outputs.metadata["frame_times"]

    @property
    def has_frames(self) -> bool:
        """Whether anything was filmed; else the object is made from a prompt, and `frames` is empty."""
        return self.config.dataparser.has_frames

    @property
    def num_frames(self) -> int:
        """Frames of the sequence; without frames 1, the moment at which the object is shown."""
        return len(self.frame_times)

    @property
    def fps(self) -> float:
        """Mean frames per second, at which the sequence takes as long as it was filmed in."""
        return self.frame_times.fps

    def reference_images(self) -> Float[Tensor, "frames 3 size size"]:
        """All frames on white, in [0, 1]."""
        return composite_white(self.frames.float())

    def check_frames(self, what: str) -> None:
        """Raises: InputError: there are no frames, which `what` needs."""
        if not self.has_frames:
            raise InputError(f"the run was trained from a prompt and has no frames, which {what} needs.")

    def plan(self, step: int, useful: frozenset[StepKind] = ALL_KINDS) -> StepPlan:
        """What training step `step` shows, of the `useful` kinds; determined by the seed and the step alone."""
        generator = step_generator(self.seed, step, "plan", "cpu")
        return plan_step(self.config.plan, step, self.frame_times, self.input_view, useful, generator)

    def draw_pixels(self, plan: StepPlan) -> Int64[Tensor, " rays"] | None:
        """The random pixels of a plan, for `batch`; determined by the seed and the step alone. None: all pixels."""
        if plan.random_pixels is None:
            return None
        generator = step_generator(self.seed, plan.step, "pixels", self.device)
        return draw_pixels(plan.random_pixels, plan.num_pixels, generator)

    def batch(self, plan: StepPlan, pixels: Int64[Tensor, " rays"] | None = None) -> tuple[RayBundle, dict[str, Any]]:
        """Rays of a plan's views, and the batch (see the class).

        Args:
            plan: Views, times and frames.
            pixels: Which pixels, counted view after view and row after row; None: all of them in this order.
        """
        views, times = plan.views.to(self.device), plan.times.to(self.device, non_blocking=True)
        if pixels is None:
            rays = view_rays(views, times, plan.image_size)
        else:
            rays = scattered_rays(views, times, plan.image_size, pixels)
        self.rays_per_batch = len(rays)
        batch: dict[str, Any] = {"plan": plan}
        if plan.kind is StepKind.REFERENCE:
            rgba = self._reference_images(plan, pixels)
            batch["image"] = composite_white(rgba).movedim(1, -1).reshape(-1, 3)
            batch["alpha"] = rgba[:, 3].reshape(-1)
        return rays, batch

    def _reference_images(
        self, plan: StepPlan, pixels: Int64[Tensor, " rays"] | None
    ) -> Float[Tensor, "images 4 height width"]:
        """The frames of a plan at its size, or some of their pixels as images of one pixel each."""
        frames = plan.frames.to(self.device, non_blocking=True)
        if pixels is None:
            return resized(self.frames[frames].float(), plan.image_size)
        image, row, column = locate_pixels(pixels, plan.image_size)
        return self.frames_at(plan.image_size)[frames[image], :, row, column, None, None].float()

    def frames_at(self, size: int) -> Float16[Tensor, "frames 4 size size"]:
        """All frames at some size, which are kept until another is asked for."""
        if self._resized_frames.shape[-1] != size:
            parts = [resized(part.float(), size).to(part) for part in self.frames.split(RESIZED_AT_ONCE)]
            self._resized_frames = torch.cat(parts)
        return self._resized_frames

    def next_train(self, step: int) -> tuple[RayBundle, dict[str, Any]]:
        """The batch of a training step."""
        self.train_count += 1
        plan = self.plan(step)
        return self.batch(plan, self.draw_pixels(plan))

    def next_eval(self, step: int) -> tuple[RayBundle, dict[str, Any]]:
        """A frame of the input view, as training sees it but without random draws; the next one at every call.

        Evaluation comes at multiples of some number of steps, so the step itself would pick the same few frames.
        """
        size = self.config.plan.reference_size(step)
        frame = torch.tensor([self.eval_count % self.num_frames])
        self.eval_count += 1
        return self.batch(reference_plan(step, frame, self.frame_times, self.input_view, size))

    def next_eval_image(self, step: int) -> tuple[Cameras, dict[str, Any]]:
        """A whole evaluation image; the next one at every call, so that all are shown in turn."""
        index = self._eval_images % len(self.eval_dataset)
        self._eval_images += 1
        return self.fixed_indices_eval_dataloader.get_camera(index)

    def get_train_rays_per_batch(self) -> int:
        """Rays of the latest batch."""
        return self.rays_per_batch

    def get_eval_rays_per_batch(self) -> int:
        """Rays of an evaluation image."""
        return int(self.eval_dataset.cameras.height[0] * self.eval_dataset.cameras.width[0])

    def get_datapath(self) -> Path:
        """The folder of the frames, in which the viewer saves camera paths."""
        data = self.dataparser.source
        return data if data.is_dir() else data.parent
