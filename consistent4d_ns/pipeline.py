"""The training step: render, distil, keep consistent. Owns the priors, which are never saved in checkpoints."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, ClassVar, Literal, cast

import torch
from jaxtyping import Float, Int64
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig
from nerfstudio.utils.comms import get_rank
from torch import Tensor
from torch.cuda.amp.grad_scaler import GradScaler

from consistent4d_ns.data.cameras import relative_pose
from consistent4d_ns.data.datamanager import Consistent4DDataManager, Consistent4DDataManagerConfig
from consistent4d_ns.data.planning import StepKind, StepPlan
from consistent4d_ns.draws import RenderDraws, draw_rendering, step_generator
from consistent4d_ns.errors import hide_nerfstudio_warnings, show_input_errors_in_one_line
from consistent4d_ns.guidance.base import Guidance, GuidanceDraws, ViewSampler, draw
from consistent4d_ns.guidance.config import (
    DistillationConfig,
    GuidanceConfig,
    TextGuidanceConfig,
    check_noise_levels,
    timestep_range,
)
from consistent4d_ns.interpolation.config import InterpolationConfig
from consistent4d_ns.loss_weights import per_level
from consistent4d_ns.media.encoding import offer_ffmpeg
from consistent4d_ns.media.nerfstudio_paths import sweep_time_along_untimed_paths
from consistent4d_ns.messages import say
from consistent4d_ns.model import Consistent4DModel, Consistent4DModelConfig
from consistent4d_ns.recorded_steps import RecordedSteps, RenderedStep
from consistent4d_ns.rendering.terms import rendering_terms
from consistent4d_ns.soundness import Soundness
from consistent4d_ns.steering import Steering, StepSettings, resolve_settings
from consistent4d_ns.targets.config import TargetRound, TargetsConfig
from consistent4d_ns.targets.stages import TargetStages
from consistent4d_ns.viewer.panel import Panel

MIN_CLIP = 3
"""Views of the shortest clip that has any between its ends to interpolate (method.md section 6)."""

LOGGED_TIMES = (0.0, 0.5, 1.0)
"""Times in [0, 1] at which the log shows novel views."""


@dataclass
class Consistent4DPipelineConfig(VanillaPipelineConfig):
    """Data, model and the two priors."""

    _target: type = field(default_factory=lambda: Consistent4DPipeline)
    """Class to instantiate."""
    datamanager: Consistent4DDataManagerConfig = field(default_factory=Consistent4DDataManagerConfig)
    """Frames and cameras."""
    model: Consistent4DModelConfig = field(default_factory=Consistent4DModelConfig)
    """Field, rendering and loss weights."""
    guidance: DistillationConfig = field(default_factory=GuidanceConfig)
    """The diffusion prior whose score is distilled into novel views."""
    interpolation: InterpolationConfig = field(default_factory=InterpolationConfig)
    """The frame interpolation network behind the consistency loss."""
    targets: TargetsConfig = field(default_factory=TargetsConfig)
    """Stages that fit a bank of target views in place of distilling."""


@dataclass(frozen=True)
class StepDraws:
    """All that decides one training step, beside the configuration and the model: what is random, and its settings."""

    plan: StepPlan
    """Frames and cameras."""
    pixels: Int64[Tensor, " rays"] | None
    """Pixels of the views that are rendered (see `Consistent4DDataManager.batch`); None: all of them."""
    settings: StepSettings
    """Loss weights, guidance scale and noise levels, as configured and steered."""
    rendering: RenderDraws
    """Ray jitter and normal offsets."""
    guidance: GuidanceDraws | None
    """Noise and timesteps of the distillation; None on steps without it."""


class Consistent4DPipeline(VanillaPipeline):
    """Alternates between fitting the input view and distilling novel views (method.md sections 2.2, 5, 6, 8).

    In the rounds that `TargetsConfig` describes, it fits a bank of target views in place of distilling.

    `guidance` and `interpolator` exist only while training: viewing, rendering and evaluating load neither. `steering`
    holds the changes to the configuration that are in force; `steer` asks for others, from the next step on. `targets`
    holds the target views of the current round, `soundness` counts what goes wrong, and `step_kind` is what the latest
    step rendered.
    """

    config: Consistent4DPipelineConfig
    datamanager: Consistent4DDataManager
    _steering_lock: ClassVar = Lock()
    """Held while `next_steering` is replaced. Of the class, because pipelines can be copied and locks cannot."""

    def __init__(
        self,
        config: Consistent4DPipelineConfig,
        device: str,
        test_mode: Literal["test", "val", "inference"] = "val",
        world_size: int = 1,
        local_rank: int = 0,
        grad_scaler: GradScaler | None = None,
    ) -> None:
        show_input_errors_in_one_line()
        hide_nerfstudio_warnings()
        if test_mode == "val" and config.guidance.kind != "none":
            check_noise_levels(config.guidance)
        if test_mode == "val":
            config.targets.check(config.guidance)
        super().__init__(config, device, test_mode, world_size, local_rank, grad_scaler)
        self.seed = torch.initial_seed()
        self.step_terms: dict[str, Tensor] = {}
        self.latest_terms: dict[str, Tensor] = {}
        self.guidance: Guidance | None = None
        self.interpolator: Any = None
        # Nerfstudio adds the rank to the seed; target views are the same on all ranks.
        self.recorded: RecordedSteps | None = None
        if config.model.cuda_graphs and self.model.is_recordable and world_size == 1:
            self.recorded = RecordedSteps(self.model)
        self.targets = TargetStages(config.targets, config.guidance, self.datamanager, self.seed - get_rank())
        self.steering = self.next_steering = Steering()
        self.settings = self.resolve_settings(step=0)
        self.soundness = Soundness(self.device, self.frames_opacity() if test_mode == "val" else 1.0)
        self.step_kind = StepKind.REFERENCE
        self.panel = Panel(self, training=test_mode == "val")
        if test_mode == "val":
            self.load_priors(device)
        else:
            offer_ffmpeg()
            sweep_time_along_untimed_paths()

    @property
    def model(self) -> Consistent4DModel:
        """The model, out of the wrapper of distributed training."""
        return cast(Consistent4DModel, super().model)

    @property
    def guidance_config(self) -> DistillationConfig:
        """The settings of the guidance as configured."""
        return self.config.guidance

    @property
    def interpolates(self) -> bool:
        """Whether neighbouring images are kept consistent by an interpolation network."""
        return self.interpolator is not None

    @property
    def target_rounds(self) -> tuple[TargetRound, ...]:
        """The rounds of training that fit a bank of target views."""
        return self.targets.rounds

    def load_priors(self, device: str) -> None:
        """Load the configured priors and condition the guidance on the frames.

        Where target views are imagined, the prior's decoder is kept until they are, whatever `previews` says.

        Raises:
            InputError: Weights are missing or of another layout.
        """
        # Imported here: both import network libraries, and viewing, rendering and evaluating need neither.
        from consistent4d_ns.guidance.loading import build_guidance, build_text_guidance
        from consistent4d_ns.interpolation.consistency import load_interpolator

        self.interpolator = load_interpolator(self.config.interpolation, device)
        previews = self.config.guidance.previews or self.targets.samples_after(-1)
        prior, view = dataclasses.replace(self.config.guidance, previews=previews), self.datamanager.input_view
        if isinstance(prior, TextGuidanceConfig):
            self.guidance = build_text_guidance(prior, self.config.model.prompt or "", view, device)
            return
        assert isinstance(prior, GuidanceConfig)
        guidance = build_guidance(prior, float(view.elevation[0]), device)
        if guidance is not None:
            guidance.prepare(self.datamanager.reference_images())
        self.guidance = guidance

    def frames_opacity(self) -> float | None:
        """Mean opacity of the frames, in [0, 1]; None where there are none."""
        frames = self.datamanager.frames
        return float(frames[:, 3].float().mean()) if self.datamanager.has_frames else None

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """Nerfstudio's callbacks, the panel's, and the prior's decoder freed where it has done its work."""
        callbacks = super().get_training_callbacks(training_callback_attributes)
        after = [TrainingCallbackLocation.AFTER_TRAIN_ITERATION]
        for function in (self.panel.after_step, self.free_decoder):
            callbacks.append(TrainingCallback(after, function, update_every_num_iters=1))
        return callbacks

    def free_decoder(self, step: int) -> None:
        """Free what the prior is sampled with, once no step after `step` samples target views and previews are off."""
        unused = not (self.config.guidance.previews or self.targets.samples_after(step))
        if unused and isinstance(self.guidance, ViewSampler):
            self.guidance.end_sampling()

    def steer(self, **changes: Any) -> None:
        """Change values of `Steering` from the next step on; may be called from any thread."""
        with self._steering_lock:
            self.next_steering = dataclasses.replace(self.next_steering, **changes)

    def adopt_steering(self, step: int) -> None:
        """Apply the latest steering from `step` on, and print what it changes."""
        latest = self.next_steering
        for change in latest.changes_since(self.steering):
            say(f"From step {step} on: {change}")
        self.steering = latest

    def resolve_settings(self, step: int) -> StepSettings:
        """The settings of training step `step`, as configured and steered."""
        levels = self.model.field.num_levels
        weights, factor = self.config.model.loss_weights, self.targets.rgb_factor(step)
        return resolve_settings(weights, self.config.guidance, self.steering, step, levels, factor)

    def useful_kinds(self, step: int) -> frozenset[StepKind]:
        """Kinds of steps for which there is a loss, given the loaded priors and the stage of training."""
        if not self.datamanager.has_frames:
            return frozenset(kind for kind in StepKind if kind.is_distilled)  # There is nothing else to fit.
        if self.steering.pause_distillation:
            return frozenset({StepKind.REFERENCE})
        if self.guidance is not None:
            return frozenset(StepKind)
        plan = self.datamanager.config.plan
        length = plan.clip_views[plan.stage(step)]
        if self.interpolator is None or length < MIN_CLIP:
            return frozenset({StepKind.REFERENCE})
        clips = {StepKind.AZIMUTHS} if self.datamanager.num_frames < MIN_CLIP else {StepKind.AZIMUTHS, StepKind.TIMES}
        return frozenset({StepKind.REFERENCE, *clips})

    def plan(self, step: int) -> StepPlan:
        """What training step `step` shows: the input view, views to be distilled, or target views of a round."""
        # Also in reference steps: the first step of a round makes its target views.
        targets = self.targets.plan(step, self.model, self.guidance, self.steering.pause_distillation)
        if targets is None or self.datamanager.config.plan.fits_input(step):
            return self.datamanager.plan(step, self.useful_kinds(step))
        return targets

    def draw(self, step: int) -> StepDraws:
        """What decides training step `step`; follows from the seed, the step, the configuration and the steering.

        And, in a round that fits target views, from their bank, which the round's first step makes.
        """
        settings = self.resolve_settings(step)
        plan = self.plan(step)
        offsets = self.config.model.loss_weights.normal_smoothness_3d > 0
        rendering = draw_rendering(plan.num_rays, step_generator(self.seed, step, "rendering", self.device), offsets)
        guidance = None
        if self.guidance is not None and plan.kind.is_distilled:
            timesteps = timestep_range(settings.noise_range, self.guidance.num_timesteps)
            generator = step_generator(self.seed, step, "guidance", self.device)
            levels = self.model.field.num_levels
            guidance = draw(self.guidance, levels, len(plan.frames), timesteps, generator)
        return StepDraws(plan, self.datamanager.draw_pixels(plan), settings, rendering, guidance)

    def get_train_loss_dict(self, step: int) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
        """Outputs, weighted losses and values for the log of one training step.

        Runs in full precision even under the trainer's mixed precision, as the original does (method.md section 8):
        only the priors gain from half precision, and they have a precision setting of their own.
        """
        self.adopt_steering(step)
        with torch.autocast(torch.device(self.device).type, enabled=False):
            return self.training_step(self.draw(step))

    def training_step(self, draws: StepDraws) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
        """One training step, determined by its draws."""
        plan = draws.plan
        self.step_kind = plan.kind
        rendered = self.replayed(draws) or self.rendered(draws)
        terms = dict(rendered.terms)
        if plan.kind.is_distilled:
            images = as_images(rendered.rgb, plan)
            terms |= self.distillation_terms(images, draws)
            terms |= self.consistency_terms(images, plan)
        metrics = rendered.metrics | self.figures(terms, draws)
        return {"rgb": rendered.rgb}, weighted(terms, draws.settings.loss_weights), metrics

    def rendered(self, draws: StepDraws) -> RenderedStep:
        """What a training step renders."""
        rays, batch = self.batch(draws.plan, draws.pixels)
        # Called through `_model`, and once only: distributed training wraps that.
        outputs = self._model(rays, draws.rendering, draws.plan.step)
        terms = rendering_terms(outputs["rendering"], batch, self.config.model.loss_weights)
        return RenderedStep(outputs["rendering"].rgb, terms, self.model.get_metrics_dict(outputs, batch))

    def replayed(self, draws: StepDraws) -> RenderedStep | None:
        """The same from CUDA graphs; None where it cannot be recorded."""
        if self.recorded is None:
            return None
        plan, data = draws.plan, self.datamanager
        data.rays_per_batch = plan.num_rays
        sources = [data.frames if draws.pixels is None else data.frames_at(plan.image_size)]
        if plan.kind is StepKind.TARGETS:
            sources = self.targets.images
        return self.recorded.render(plan, draws.pixels, draws.rendering, self.batch, sources)

    def batch(self, plan: StepPlan, pixels: Int64[Tensor, " rays"] | None) -> tuple[RayBundle, dict[str, Any]]:
        """Rays of a step, and what they are to show."""
        rays, batch = self.datamanager.batch(plan, pixels)
        if plan.kind is StepKind.TARGETS:
            assert pixels is not None
            batch |= self.targets.batch(pixels)
        return rays, batch

    def distillation_terms(
        self, images: Float[Tensor, "levels views 3 height width"], draws: StepDraws
    ) -> dict[str, Tensor]:
        """Score distillation of every level (method.md section 5.3); nothing without guidance."""
        if self.guidance is None or draws.guidance is None:
            return {}
        poses = relative_pose(draws.plan.views, self.datamanager.input_view).to(images.device, non_blocking=True)
        frames = draws.plan.frames.to(images.device, non_blocking=True)
        before = self.guidance.undefined_predictions
        sds = self.guidance.loss(images, poses, frames, draws.guidance, draws.settings.guidance_scale)
        # A prediction that is not finite makes the step one that is skipped, on all devices that train together.
        undefined = (self.guidance.undefined_predictions - before).to(sds.device, non_blocking=True) > 0
        return per_level("sds", sds * torch.where(undefined, math.nan, 1.0))

    def consistency_terms(
        self, images: Float[Tensor, "levels views 3 height width"], plan: StepPlan
    ) -> dict[str, Tensor]:
        """Interpolation-driven consistency of a clip, every level (method.md section 6); else nothing."""
        if self.interpolator is None or not plan.kind.is_clip or images.shape[1] < MIN_CLIP:
            return {}
        from consistent4d_ns.interpolation.consistency import consistency_loss

        return per_level("consistency", consistency_loss(self.interpolator, images))

    def figures(self, terms: dict[str, Tensor], draws: StepDraws) -> dict[str, Tensor]:
        """Values for the log: the latest value and the weight of every term, and the current values of all schedules.

        Kinds of steps alternate and not every step is logged: hence the latest value of each term, not this step's.
        """
        settings = self.settings = draws.settings
        self.step_terms = {name: term.detach() for name, term in terms.items()}
        self.latest_terms |= self.step_terms
        known = {f"term/{name}": term for name, term in self.latest_terms.items()}
        numbers = {f"weight/{name}": settings.loss_weights[name] for name in self.latest_terms}
        numbers |= {"schedule/image_size": draws.plan.image_size, "schedule/views": len(draws.plan.frames)}
        numbers["schedule/rays"] = draws.plan.num_rays
        if self.target_rounds:
            numbers["schedule/learning_rate_factor"] = self.targets.rate_factor(draws.plan.step)
        if self.guidance is not None:
            low, high = timestep_range(settings.noise_range, self.guidance.num_timesteps)
            numbers |= {"schedule/min_timestep": low, "schedule/max_timestep": high}
            numbers |= {"schedule/guidance_scale": settings.guidance_scale}
            known["guidance/undefined_predictions"] = self.guidance.undefined_predictions.float()
        return known | {name: torch.tensor(float(number)) for name, number in numbers.items()}

    def likely_cause(self) -> str:
        """Where values that are not finite come from, and what helps, for a message; waits for the device."""
        undefined = 0 if self.guidance is None else int(self.guidance.undefined_predictions)
        if undefined:
            return (
                f"the prior gave {undefined} predictions that are not finite: try --pipeline.guidance.precision fp32, "
                "or another prior"
            )
        terms = [name for name, term in self.step_terms.items() if not bool(term.isfinite().all())]
        broken = f"not finite: {', '.join(terms)}; " if terms else ""
        return f"{broken}check the frames, and try a lower --optimizers.field.optimizer.lr"

    def get_eval_loss_dict(self, step: int) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
        """Losses of one frame of the input view, without randomness or gradients.

        Raises:
            InputError: there are no frames.
        """
        self.datamanager.check_frames("the evaluation loss")
        self.eval()
        with torch.no_grad():
            rays, batch = self.datamanager.next_eval(step)
            outputs = {"rendering": self.model.render(rays, None, with_normals=False)}
            metrics = self.model.get_metrics_dict(outputs, batch)
            losses = self.model.get_loss_dict(outputs, batch, metrics)
        self.train()
        return outputs, losses, metrics

    def get_eval_image_metrics_and_images(self, step: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Metrics and images of one evaluation view, and the input beside novel views at the stage's resolution.

        Without frames, novel views alone.
        """
        from consistent4d_ns.media.pictures import contact_sheet, input_and_novel_views, shown_times

        metrics: dict[str, Any] = {"num_rays": 0}
        images: dict[str, Tensor] = {}
        if self.datamanager.has_frames:
            metrics, images = super().get_eval_image_metrics_and_images(step)
        self.eval()
        plan = self.datamanager.config.plan
        size = plan.image_sizes[plan.stage(step)]
        rows = input_and_novel_views(self.model, self.datamanager, shown_times(self.datamanager, LOGGED_TIMES), size)
        self.train()
        name = "input_and_novel_views" if self.datamanager.has_frames else "novel_views"
        images[name] = torch.from_numpy(contact_sheet(rows)) / 255.0
        metrics["num_rays"] += (len(rows[0]) - self.datamanager.has_frames) * len(rows) * size**2
        return metrics, images

    def get_average_eval_image_metrics(self, *args: Any, **options: Any) -> dict[str, Any]:
        """Means over all evaluation images (see Nerfstudio's pipeline).

        Raises:
            InputError: there are no frames.
        """
        self.datamanager.check_frames("an evaluation")
        return super().get_average_eval_image_metrics(*args, **options)


def weighted(terms: dict[str, Tensor], weights: dict[str, float]) -> dict[str, Tensor]:
    """Loss terms times their weights, in one product."""
    values = torch.stack(list(terms.values()))
    factors = torch.tensor([weights[name] for name in terms], dtype=values.dtype)
    return dict(zip(terms, (values * factors.to(values.device, non_blocking=True)).unbind(), strict=True))


def as_images(rgb: Float[Tensor, "levels rays 3"], plan: StepPlan) -> Float[Tensor, "levels views 3 height width"]:
    """Rays of square images, view-major, as channel-first images."""
    size = plan.image_size
    return rgb.view(rgb.shape[0], len(plan.frames), size, size, 3).movedim(-1, 2)
