"""The methods that `ns-train` lists, all from one builder."""

from __future__ import annotations

from consistent4d_ns.nerfstudio_internals import import_trainer_lightly, name_callers_quickly

import_trainer_lightly()  # Before anything else imports it in full.
name_callers_quickly()  # Before `ns-train` lists all methods, the plugins' first.

import sys
from copy import deepcopy
from typing import cast

import torch
from nerfstudio.configs.base_config import LoggingConfig, MachineConfig, ViewerConfig
from nerfstudio.plugins.types import MethodSpecification

from consistent4d_ns.data.datamanager import Consistent4DDataManagerConfig
from consistent4d_ns.data.dataparser import FrameSequenceDataParserConfig, ObjectDataParserConfig
from consistent4d_ns.data.orbit import OrbitDataParserConfig
from consistent4d_ns.data.planning import PlanConfig
from consistent4d_ns.docstrings import is_help, show_paragraphs
from consistent4d_ns.guidance.bundled_prior import NAME
from consistent4d_ns.guidance.config import DistillationConfig, GuidanceConfig, TextGuidanceConfig
from consistent4d_ns.interpolation.config import InterpolationConfig
from consistent4d_ns.model import Consistent4DModelConfig, LossWeights
from consistent4d_ns.pipeline import Consistent4DPipelineConfig
from consistent4d_ns.schedules import Anneal
from consistent4d_ns.targets.config import HoldConfig, ImagineConfig, TargetsConfig
from consistent4d_ns.trainer_config import Consistent4DTrainerConfig, FieldOptimizerConfig, TrainingLogConfig


def method(
    name: str,
    description: str,
    *,
    model: Consistent4DModelConfig,
    plan: PlanConfig | None = None,
    targets: TargetsConfig | None = None,
    steps: int = 6000,
    image_size: int = 256,
    frame_count: int | None = None,
    dataparser: ObjectDataParserConfig | None = None,
    guidance: DistillationConfig | None = None,
    interpolation: InterpolationConfig | None = None,
) -> MethodSpecification:
    """A method, from the values in which presets differ; by default those of the presets for full-size priors.

    Each gets objects of its own, so that a change of one preset leaves the others as they are.
    """
    plan = plan or PlanConfig(stage_steps=(0, 2250), reference_sizes=(256,), reference_rays=16_384)
    targets = targets or TargetsConfig(  # the first 1500 steps and the last 3000
        imagine=ImagineConfig(steps=500, strengths=(1.0, 0.8, 0.6), scale=3.0, rays=16_384, image_size=256),
        hold=HoldConfig(steps=3000, begin_step=3000, views=384, rays=16_384, image_size=256),
    )
    guidance = guidance or GuidanceConfig(min_noise=Anneal(0.8, 0.2, 2250), max_noise=Anneal(0.98, 0.25, 2250))
    config = Consistent4DTrainerConfig(
        method_name=name,
        max_num_iterations=steps,
        steps_per_eval_batch=0,
        steps_per_eval_image=max(1, steps // 20),
        steps_per_eval_all_images=0,
        steps_per_save=max(1, steps // 5),
        mixed_precision=False,
        pipeline=Consistent4DPipelineConfig(
            datamanager=Consistent4DDataManagerConfig(
                dataparser=dataparser or FrameSequenceDataParserConfig(image_size=image_size, frame_count=frame_count),
                plan=plan,
            ),
            model=model,
            guidance=guidance,
            interpolation=interpolation or InterpolationConfig(),
            targets=targets,
        ),
        optimizers={"field": {"optimizer": FieldOptimizerConfig(), "scheduler": None}},
        machine=MachineConfig(seed=0, device_type="cuda" if torch.cuda.is_available() else "cpu"),
        # All frames share one camera, which the viewer's panel shows with the current frame.
        viewer=ViewerConfig(websocket_host="127.0.0.1", num_rays_per_chunk=1 << 15, max_num_display_images=0),
        logging=LoggingConfig(steps_per_log=10, local_writer=TrainingLogConfig()),
        vis="viewer+tensorboard",
    )
    return MethodSpecification(config=config, description=description)


consistent4d = method(
    "consistent4d",
    "Consistent4D: a 360-degree dynamic object from one video (two levels, the paper's setting).",
    model=Consistent4DModelConfig(),
)

consistent4d_big = method(
    "consistent4d-big",
    "Consistent4D with four levels, for large motion and detail.",
    model=Consistent4DModelConfig(
        grid_resolutions=((50, 50, 50, 8), (100, 100, 100, 16), (200, 200, 200, 32), (200, 200, 200, 32)),
        loss_weights=LossWeights(rgb=(500.0, 500.0, 200.0, 500.0), sds=(0.1, 0.1, 0.003, 0.1)),
    ),
)


def mini_model(times: tuple[int, int], occupancy_times: int = 8) -> Consistent4DModelConfig:
    """The field of the mini presets, with these grid sizes along t."""
    return Consistent4DModelConfig(
        grid_resolutions=((24, 24, 24, times[0]), (48, 48, 48, times[1])),
        channels=(8,),
        hidden_width=16,
        samples_per_ray=96,
        occupancy_resolution=24,
        occupancy_times=occupancy_times,
        loss_weights=LossWeights(consistency=(800.0,), orientation=Anneal(0.0), normal_smoothness_3d=0.0),
    )


def mini_plan(**shares: float) -> PlanConfig:
    """The stages of the mini presets, with these shares of kinds of steps."""
    return PlanConfig(
        stage_steps=(0, 500),
        image_sizes=(32, 64),
        reference_sizes=(128,),
        reference_rays=3072,
        views=(4, 2),
        clip_views=(4, 4),
        **shares,  # type: ignore[arg-type]
    )


def mini_targets(hold: HoldConfig) -> TargetsConfig:
    """The imagined views of the mini presets, and the given held ones."""
    imagine = ImagineConfig(steps=375, views=128, sampling_steps=3, scale=1.0, rays=3072)
    return TargetsConfig(imagine=imagine, hold=hold)


def mini_guidance() -> GuidanceConfig:
    """The bundled prior; chosen by results (docs/results.md)."""
    return GuidanceConfig(
        prior=NAME,
        scale=1.0,
        min_noise=Anneal(0.8, 0.2, 700),
        max_noise=Anneal(0.98, 0.4, 700),
        previews=True,
    )


consistent4d_mini = method(
    "consistent4d-mini",
    "A small Consistent4D with the prior that comes with this package: trains on two CPU cores in minutes, offline.",
    model=mini_model((16, 32)),
    plan=mini_plan(),
    targets=mini_targets(HoldConfig(steps=1500, begin_step=1250, views=384, rays=3072, rgb_factor=4.0)),
    steps=2_750,
    image_size=128,
    guidance=mini_guidance(),
    # The small prior's views already change slowly: the consistency loss takes motion and detail from them.
    interpolation=InterpolationConfig(kind="none"),
)

consistent4d_image = method(
    "consistent4d-image",
    "Consistent4D for one image: a static object, of a field without planes over time.",
    model=Consistent4DModelConfig(grid_resolutions=((50, 50, 50, 0), (100, 100, 100, 0)), occupancy_times=1),
    plan=PlanConfig(stage_steps=(0, 700), reference_sizes=(256,), reference_rays=16_384, azimuths=0.25, times=0.0),
    targets=TargetsConfig(
        imagine=ImagineConfig(steps=150, strengths=(1.0, 0.8, 0.6), views=64, scale=3.0, rays=16_384, image_size=256),
        hold=HoldConfig(steps=800, begin_step=800, views=96, rays=16_384, image_size=256),
    ),
    steps=1_600,
    frame_count=1,
    guidance=GuidanceConfig(min_noise=Anneal(0.8, 0.2, 700), max_noise=Anneal(0.98, 0.25, 700)),
)

consistent4d_image_mini = method(
    "consistent4d-image-mini",
    "A small consistent4d-image with the prior that comes with this package: trains on two CPU cores, offline.",
    model=mini_model((0, 0), occupancy_times=1),
    plan=mini_plan(azimuths=0.25, times=0.0),
    targets=mini_targets(HoldConfig(steps=1250, begin_step=1250, views=128, rays=3072, rgb_factor=4.0)),
    steps=2_500,
    image_size=128,
    frame_count=1,
    guidance=mini_guidance(),
    interpolation=InterpolationConfig(kind="none"),
)

consistent4d_text = method(
    "consistent4d-text",
    "Consistent4D for a prompt, without any frames: a static object, distilled from a text-to-image prior.",
    model=Consistent4DModelConfig(
        grid_resolutions=((50, 50, 50, 0), (100, 100, 100, 0)),
        occupancy_times=1,
        # No frames say where the object ends: the first two terms do. None of these weights has been tuned yet.
        loss_weights=LossWeights(
            sparsity=1.0, orientation=Anneal(0.0, 10.0, 5000), normal_smoothness_3d=0.0, sds=(1.0,)
        ),
    ),
    plan=PlanConfig(
        stage_steps=(0, 5000),
        image_sizes=(64, 128),
        views=(2, 1),
        clip_views=(4, 4),
        reference_every=0,
        independent=0.75,
        azimuths=0.25,
        times=0.0,
        identical=0.0,
        elevation_range=(-10.0, 80.0),
    ),
    targets=TargetsConfig(),
    steps=10_000,
    dataparser=OrbitDataParserConfig(elevation=15.0),
    guidance=TextGuidanceConfig(),
)

PRESETS = (
    consistent4d,
    consistent4d_big,
    consistent4d_mini,
    consistent4d_image,
    consistent4d_image_mini,
    consistent4d_text,
)
"""All presets."""

if is_help(sys.argv):  # It takes half a second.
    for specification in PRESETS:
        show_paragraphs(specification.config)


def preset(specification: MethodSpecification) -> Consistent4DTrainerConfig:
    """A copy of a preset's configuration, to be changed and run from Python."""
    return cast(Consistent4DTrainerConfig, deepcopy(specification.config))
