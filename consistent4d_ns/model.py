"""The Nerfstudio model: the cascade field and how it is rendered."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.models.base_model import Model, ModelConfig
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from consistent4d_ns.data.images import straight_colour
from consistent4d_ns.data.planning import StepKind
from consistent4d_ns.data.rays import box_exit
from consistent4d_ns.data.times import TIME_SLACK, check_times
from consistent4d_ns.device import kernels
from consistent4d_ns.draws import RenderDraws, step_generator
from consistent4d_ns.errors import InputError
from consistent4d_ns.field.cascade import CascadeKPlanes, DensityBlob
from consistent4d_ns.field.types import HeadImplementation, PlaneReduction
from consistent4d_ns.loss_weights import LossWeights
from consistent4d_ns.nerfstudio_internals import (
    background_override,
    freeze_device_indicator,
    remember_annotations_of_rays,
)
from consistent4d_ns.rendering.compositing import accumulate, composite, depth_variance, normalised_depth
from consistent4d_ns.rendering.losses import peak_signal_noise_ratio
from consistent4d_ns.rendering.metrics import evaluation_images, image_metrics, silhouette_iou
from consistent4d_ns.rendering.rendered import Rendering
from consistent4d_ns.rendering.sampling import OccupancyGrid, PackedSamples, step_size
from consistent4d_ns.rendering.terms import rendering_terms

OCCUPANCY_EVERY = 16
"""Steps between updates of the occupancy grid (method.md section 4.1)."""
OCCUPANCY_WARMUP = 256
"""Steps during which an update samples every cell (method.md section 4.1)."""
NORMAL_SHIFT = 0.01
"""Standard deviation of the offset to the point where a second normal is evaluated, in world units (method.md section
3.3)."""
SAMPLES_KEPT = 1 << 20
"""Most samples of a training step whose query of the field is kept for the backward pass; each takes some kilobytes."""
CUDA_CHUNKS = 16
"""Chunks of rays rendered at once on a CUDA device outside training: one alone would leave most of it idle."""
NORMAL_SHARE = 1e-3
"""Samples that contribute less than this share of a ray's opacity are left out of rendered normals."""
NORMAL_OPACITY = 1.0 / 512.0
"""Rays of a lower opacity have no rendered normal: it would change their colour by less than half a grey level."""


LARGEST = {
    "hidden_width": 4096,
    "samples_per_ray": 65_536,
    "eval_num_rays_per_chunk": 16_777_216,
    "occupancy_resolution": 512,
    "occupancy_times": 1024,
    "channels": 1024,
    "grid_resolutions": 2048,
}
"""Largest sizes that are tried; far larger ones would take minutes or fill the memory before anything is said."""


@dataclass
class Consistent4DModelConfig(ModelConfig):
    """The field, its rendering, and the weights of its losses."""

    _target: type = field(default_factory=lambda: Consistent4DModel)
    """Class to instantiate."""
    enable_collider: bool = False
    """Not used: rays are sampled inside the object's box."""
    eval_num_rays_per_chunk: int = 16384
    """Rays rendered at a time outside training, on a CUDA device `CUDA_CHUNKS` times as many; fewer take less
    memory."""
    grid_resolutions: tuple[tuple[int, int, int, int], ...] = ((50, 50, 50, 8), (100, 100, 100, 16))
    """Grid size along x, y, z, t for each level of the cascade, coarse to fine. 0 along t: the level has no planes over
    time and is the same at all times; so is the object if this is so for all levels."""
    channels: tuple[int, ...] = (16,)
    """Features per plane; once for all levels, or per level."""
    hidden_width: int = 32
    """Width of the heads' hidden layer."""
    plane_reduction: PlaneReduction = "product"
    """How the six planes of a level are combined: their product, or (xy + xz + yz) * xt * yt * zt."""
    density_blob: DensityBlob = "linear"
    """Initial ball of density, added to the raw density: `linear` is 10 (1 - 2 |p|), `gaussian` 10 exp(-2 |p|^2)."""
    implementation: HeadImplementation = "torch"
    """Implementation of the heads: `torch`, on a CUDA device as one Triton kernel, or `tcnn`, which needs tinycudann
    and a CUDA device, also to open its checkpoints."""
    samples_per_ray: int = 256
    """Samples along the diagonal of the box; sets the distance between samples."""
    occupancy_resolution: int = 32
    """Cells per side of the occupancy grid."""
    occupancy_times: int = 8
    """Times at which each cell is sampled in one update (the original: one, quirk 16)."""
    cuda_graphs: bool = True
    """On CUDA with Triton, capture what training steps render, with its gradients, once per kind of step, and replay it
    from then on: one launch instead of hundreds. Not used with several GPUs, tinycudann heads, or very many samples,
    nor where `deterministic` is on and heads have more than 1024 weights to their hidden layer."""
    render_normals: bool = True
    """Whether normals are among the outputs outside training."""
    loss_weights: LossWeights = field(default_factory=LossWeights)
    """Weights of all loss terms."""

    def check(self) -> None:
        """Raises: InputError: Values contradict each other, are below 1, or above `LARGEST`."""
        levels = len(self.grid_resolutions)
        if len(self.channels) not in (1, levels):
            raise InputError(
                f"--pipeline.model.channels has {len(self.channels)} values for {levels} levels; "
                "give one value for all levels or one per level."
            )
        self.loss_weights.check(levels)
        for name, largest in LARGEST.items():
            value = getattr(self, name)
            # Along t, 0 cells are none.
            sides = [side for level in value for side in level[:3]] if name == "grid_resolutions" else np.ravel(value)
            if min(sides, default=0) < 1:
                raise InputError(f"--pipeline.model.{name.replace('_', '-')} is {value}: give at least 1.")
            if np.max(value) > largest:
                raise InputError(f"--pipeline.model.{name.replace('_', '-')} is {value}: give at most {largest}.")
        if min(level[3] for level in self.grid_resolutions) < 0:
            raise InputError(f"--pipeline.model.grid-resolutions is {self.grid_resolutions}: give 0 or more along t.")

    @property
    def is_static(self) -> bool:
        """Whether the object is the same at all times."""
        return all(level[3] == 0 for level in self.grid_resolutions)


class Consistent4DModel(Model):
    """A dynamic object in the box [-1, 1]^3 on a white background."""

    config: Consistent4DModelConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        freeze_device_indicator(self)

    def populate_modules(self) -> None:
        """Build the field and the occupancy grid.

        Raises:
            InputError: The configuration contradicts itself.
        """
        super().populate_modules()
        remember_annotations_of_rays()
        config = self.config
        config.check()
        levels = len(config.grid_resolutions)
        channels = config.channels if len(config.channels) == levels else config.channels * levels
        self.field = CascadeKPlanes(
            config.grid_resolutions,
            channels,
            config.hidden_width,
            config.plane_reduction,
            config.density_blob,
            config.implementation,
        )
        self.occupancy = OccupancyGrid(config.occupancy_resolution, step_size(config.samples_per_ray))
        self.seed = torch.initial_seed()

    def get_param_groups(self) -> dict[str, list[nn.Parameter]]:
        """One group with all parameters of the field."""
        return {"field": list(self.field.parameters())}

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """Keep the occupancy grid up to date."""
        location = [TrainingCallbackLocation.BEFORE_TRAIN_ITERATION]
        return [TrainingCallback(location, self.update_occupancy, update_every_num_iters=OCCUPANCY_EVERY)]

    def update_occupancy(self, step: int) -> None:
        """One update of the occupancy grid; called at steps divisible by `OCCUPANCY_EVERY`."""
        generator = step_generator(self.seed, step, "occupancy", self.device)
        draws = self.occupancy.draw(step, self.config.occupancy_times, OCCUPANCY_WARMUP, generator)
        self.occupancy.update(self.field.density, draws)

    def forward(
        self, ray_bundle: RayBundle | Cameras, draws: RenderDraws | None = None, step: int = 0
    ) -> dict[str, Any]:
        """Outputs for a bundle of rays.

        Args:
            ray_bundle: Rays, with times in [0, 1] or without (then the first frame is shown).
            draws: Random draws of a training step; without them nothing is random and the outputs are images.
            step: Training step, which determines what the losses need.
        """
        return self.get_outputs(ray_bundle, draws, step)

    def get_outputs(
        self, ray_bundle: RayBundle | Cameras, draws: RenderDraws | None = None, step: int = 0
    ) -> dict[str, Any]:
        """In training (with draws) {"rendering": Rendering}, else those of `Rendering.images`."""
        assert isinstance(ray_bundle, RayBundle)
        if draws is not None:
            return {"rendering": self.render(ray_bundle, draws, self.config.loss_weights.needs_normals(step))}
        return self.render(ray_bundle, None, self.config.render_normals).images

    @torch.no_grad()
    def get_outputs_for_camera(self, camera: Cameras, obb_box: OrientedBox | None = None) -> dict[str, Tensor]:
        """Images of one camera at its time, by name.

        Raises:
            InputError: It has no time although the object moves, or one outside 0..1.
        """
        if camera.times is None and not self.field.is_static:
            raise InputError("the camera has no time: set its `times`, from 0 (first frame) to 1 (last frame).")
        if camera.times is not None:
            check_times(camera.times.flatten().tolist(), "the camera", TIME_SLACK)
        return super().get_outputs_for_camera(in_floating_point(camera), obb_box)

    @property
    def rays_at_once(self) -> int:
        """Rays rendered at a time outside training."""
        return self.config.eval_num_rays_per_chunk * (CUDA_CHUNKS if self.device.type == "cuda" else 1)

    @torch.no_grad()
    def get_outputs_for_camera_ray_bundle(self, camera_ray_bundle: RayBundle) -> dict[str, Tensor]:
        """Images of the rays of one camera, by name, on the device of the rays."""
        height, width = camera_ray_bundle.shape
        rays, target = camera_ray_bundle.flatten(), camera_ray_bundle.origins.device
        size = self.rays_at_once
        parts = [self(rays[begin : begin + size].to(self.device)) for begin in range(0, len(rays), size)]
        return {name: torch.cat([part[name].to(target) for part in parts]).view(height, width, -1) for name in parts[0]}

    def render(
        self, rays: RayBundle, draws: RenderDraws | None, with_normals: bool, capacity: int | None = None
    ) -> Rendering:
        """Volume-render a bundle of rays (method.md section 4).

        With a capacity and draws, on a CUDA device, nothing waits for the number of samples, and what does not fit is
        left out: the caller has to know that all do (see `OccupancyGrid.count`).
        """
        rays = rays.flatten()
        samples = self.sample(rays, draws, capacity)
        directions = rays.directions[samples.ray_indices]
        times = self._sample_times(rays, samples)
        normals = shifted = normal_map = None
        if with_normals and draws is not None:
            density, features, normals = queried(self.field.with_normals, samples.points, times)
            shifted = self._shifted_normals(samples, times, draws)
        else:
            density, features = queried(self.field, samples.points, times)
        sums = composite(density, features, samples)
        weights, accumulation = sums.weights, sums.accumulation
        depth = normalised_depth(sums.expected_depth, accumulation, box_exit(rays.origins.norm(dim=-1)))
        spread = self.config.loss_weights.depth_variance > 0
        if with_normals and (draws is None or self.config.loss_weights.normal_smoothness_2d > 0):
            normal_map = self._normal_map(normals, weights, accumulation, samples, times)
        return Rendering(
            rgb=sums.colour + self._background(sums.colour) * (1.0 - accumulation[..., None]),
            accumulation=accumulation,
            expected_depth=sums.expected_depth,
            depth=depth,
            depth_variance=depth_variance(weights, depth, samples) if spread else None,
            weights=weights,
            kept=samples.kept,
            normals=normals,
            shifted_normals=shifted,
            directions=directions,
            normal_map=normal_map,
        )

    def sample(self, rays: RayBundle, draws: RenderDraws | None, capacity: int | None = None) -> PackedSamples:
        """Sample points along the rays; `padded` to a capacity if there is one."""
        nears, fars = (None if t is None else t[:, 0] for t in (rays.nears, rays.fars))
        jitter = None if draws is None else draws.jitter
        return self.occupancy.sample(rays.origins, rays.directions, jitter, nears, fars, capacity)

    def get_loss_dict(
        self, outputs: dict[str, Any], batch: dict[str, Any], metrics_dict: dict[str, Any] | None = None
    ) -> dict[str, Tensor]:
        """Loss terms of the rendering, weighted as configured."""
        weights = self.config.loss_weights
        terms = rendering_terms(outputs["rendering"], batch, weights)
        return {name: term * weights.at(name, batch["plan"].step) for name, term in terms.items()}

    def get_metrics_dict(self, outputs: dict[str, Any], batch: dict[str, Any]) -> dict[str, Tensor]:
        """PSNR of the input view (reference steps only), mean opacity, occupied share of the box, samples per ray."""
        rendering = cast(Rendering, outputs["rendering"])
        metrics = self.sampling_figures(rendering.weights.shape[1], rendering.rgb.shape[1])
        metrics["opacity"] = rendering.mean_opacity
        if batch["plan"].kind is StepKind.REFERENCE:
            metrics["psnr"] = peak_signal_noise_ratio(rendering.rgb[-1].detach(), batch["image"])
        return metrics

    @property
    def is_recordable(self) -> bool:
        """Whether what it renders in training can be a CUDA graph: nothing waits for the device where kernels run.

        Heads too wide for the kernel are products of torch, whose order of sums depends on the number of samples. A
        graph's includes padding, which a resumed training has less or more of.
        """
        if torch.are_deterministic_algorithms_enabled() and not self.field.heads_fit_kernel:
            return False
        return self.field.has_torch_heads and kernels.usable(next(self.field.parameters()))

    def sampling_figures(self, samples: int, rays: int) -> dict[str, Tensor]:
        """Occupied share of the box, samples per ray."""
        return {
            "occupied_share": self.occupancy.occupied.float().mean(),
            "samples_per_ray": torch.tensor(samples / max(1, rays)),
        }

    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: dict[str, Tensor]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """PSNR, SSIM and silhouette IoU of a whole image, and images for the log (truth on the left)."""
        truth = batch["image"].to(outputs["rgb"])
        metrics = image_metrics(outputs["rgb"].clamp(0.0, 1.0), truth)
        if "alpha" in batch:
            metrics["iou"] = silhouette_iou(outputs["accumulation"], batch["alpha"].to(truth))
        return metrics, evaluation_images(outputs, truth)

    def get_rgba_image(self, outputs: dict[str, Tensor], output_name: str = "rgb") -> Tensor:
        """Colour without the white background, and opacity: straight alpha."""
        accumulation = outputs[output_name.replace("rgb", "accumulation")]
        foreground = outputs[output_name] - (1.0 - accumulation)
        return torch.cat((straight_colour(foreground, accumulation), accumulation), dim=-1)

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Strict whatever is asked for: Nerfstudio would retry without `strict` and drop parameters silently.

        Raises:
            InputError: The checkpoint is of another configuration.
        """
        remedy = "load it with the config.yml saved beside it"
        try:
            result = super().load_state_dict(state_dict, strict=False, assign=assign)
        except RuntimeError as error:
            raise InputError(f"the checkpoint's parameters have other shapes than this model's; {remedy}.") from error
        wrong = result.missing_keys + result.unexpected_keys
        if wrong:
            raise InputError(f"the checkpoint does not fit this model ({', '.join(wrong[:4])} ...); {remedy}.")
        return result

    def _sample_times(self, rays: RayBundle, samples: PackedSamples) -> Float[Tensor, " samples"]:
        """Times of the samples in [-1, 1]."""
        if rays.times is None:
            return torch.full_like(samples.starts, -1.0)
        return rays.times[:, 0].to(samples.starts)[samples.ray_indices] * 2.0 - 1.0

    def _background(self, like: Tensor) -> Tensor:
        """White, or the background colour of the viewer's crop."""
        override = background_override()
        return like.new_ones(3) if override is None else override.to(like)

    def _shifted_normals(self, samples: PackedSamples, times: Tensor, draws: RenderDraws) -> Tensor | None:
        if self.config.loss_weights.normal_smoothness_3d <= 0:
            return None
        row = torch.arange(len(samples), device=samples.points.device) % len(draws.normal_offsets)
        shifted = samples.points + NORMAL_SHIFT * draws.normal_offsets[row]
        return queried(lambda *moved: (self.field.normals(*moved),), shifted, times)[0]

    def _normal_map(
        self,
        normals: Tensor | None,
        weights: Tensor,
        accumulation: Tensor,
        samples: PackedSamples,
        times: Tensor,
    ) -> Float[Tensor, "levels rays 3"]:
        if normals is None:
            opacity = accumulation[:, samples.ray_indices]
            counts = (weights > NORMAL_SHARE * opacity) & (opacity > NORMAL_OPACITY)
            visible = counts.any(dim=0).nonzero()[:, 0]
            samples, weights = samples.select(visible), weights[:, visible]
            normals = self.field.normals(samples.points, times[visible])
        mean = F.normalize(accumulate(weights, samples, normals), dim=-1)
        return (mean + 1.0) / 2.0 * accumulation[..., None]


def queried(
    query: Callable[..., tuple[Tensor, ...]], points: Float[Tensor, "points 3"], times: Float[Tensor, " points"]
) -> tuple[Tensor, ...]:
    """The results of a query of the field, whose intermediate values are kept for few of very many points.

    More than `SAMPLES_KEPT` points are queried in parts, each again in the backward pass.

    Args:
        query: From points and times to tensors whose second dimension is the points'.
        points: Positions in the box [-1, 1]^3.
        times: Times in [-1, 1].
    """
    if len(points) <= SAMPLES_KEPT or not torch.is_grad_enabled():
        return query(points, times)
    parts = zip(points.split(SAMPLES_KEPT // 2), times.split(SAMPLES_KEPT // 2), strict=True)
    values = [checkpoint(query, *part, use_reentrant=False, preserve_rng_state=False) for part in parts]
    return tuple(torch.cat(results, dim=1) for results in zip(*values, strict=True))


def in_floating_point(camera: Cameras) -> Cameras:
    """The camera with its pose and times in floating point.

    Nerfstudio makes integer tensors of a camera path whose file has whole numbers, and cannot render those.
    """
    floats = copy(camera)
    floats.camera_to_worlds = camera.camera_to_worlds.float()
    floats.times = None if camera.times is None else camera.times.float()
    return floats
