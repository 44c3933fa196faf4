"""A finished run trained further, as a new run: sharper in the filmed view, unchanged from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import torch

from consistent4d_ns.data.dataparser import IMAGE_SIZES, FrameSequence
from consistent4d_ns.data.frames import source_side
from consistent4d_ns.errors import InputError
from consistent4d_ns.files.checkpoints import FOLDER, choose_checkpoint, is_last, step_of
from consistent4d_ns.files.config_files import CONFIG_FILE
from consistent4d_ns.files.names import expanded
from consistent4d_ns.media.figures import average, input_view, measure, novel_views
from consistent4d_ns.messages import warn
from consistent4d_ns.pipeline import Consistent4DPipeline
from consistent4d_ns.runs import read_config
from consistent4d_ns.trainer_config import TIMESTAMP, Consistent4DTrainerConfig

Method: TypeAlias = Literal["hold", "reweight"]
REFERENCE_RAYS = 16_384
"""Random pixels of the input view that a step fits where the run was trained on whole frames."""
SDS_FACTOR = 0.1
"""On the weights of distillation with `reweight`."""
RGB_FACTOR = 4.0
"""On the weights of the input view's colour."""
MEASURED_FRAMES = 8
"""Frames of each view that are measured, evenly spread over time."""
TIME_TOLERANCE = 1e-3
"""How far two times in [0, 1] may differ that are taken for the same: containers round them."""


@dataclass(frozen=True)
class FinetuneOptions:
    """How a run is trained further."""

    method: Method = "hold"
    """`hold` fits the object's own renderings beside the input view, `reweight` goes on distilling the prior."""
    steps: int = 1500
    """Training steps."""
    image_size: int | None = None
    """Side of the frames in pixels; None: as the run was trained."""

    def check(self) -> None:
        """Raises: InputError: a value is out of range."""
        low, high = IMAGE_SIZES
        if self.steps < 1:
            raise InputError(f"--steps is {self.steps}: give at least 1.")
        if self.image_size is not None and not low <= self.image_size <= high:
            raise InputError(f"--image-size is {self.image_size}: give {low} to {high} pixels.")


def finetune_config(
    run: Path, options: FinetuneOptions, step: int | None = None, data: Path | None = None, out: Path | None = None
) -> Consistent4DTrainerConfig:
    """The configuration that trains a finished run further, from its checkpoint, in a folder of its own.

    Its `max_num_iterations` counts from step 0, as in a run that was trained at one go.

    Args:
        run: The run's folder, or its config.yml.
        options: How it is trained.
        step: Training step of the checkpoint; default: the newest, of a run that is finished.
        data: Frames to use in place of the run's: the same moments, perhaps at a higher resolution.
        out: Where the new run's folder is made, as with `ns-train --output-dir`; default: where the run's was made.

    Raises:
        InputError: an option is out of range, or run, checkpoint or frames cannot be used.
    """
    options.check()
    config = read_config(run)
    if not config.has_frames:
        raise InputError(f"{run} was trained from a prompt and has no frames whose view could be sharpened: resume it.")
    folder = config.get_base_dir().resolve()
    checkpoint = choose_checkpoint(config.get_checkpoint_dir(), step)
    saved = step_of(checkpoint)
    if step is None and not is_last(saved, config.max_num_iterations):
        raise InputError(
            f"{folder} is not finished: its newest checkpoint is that of step {saved} of {config.max_num_iterations}; "
            f"resume it with ns-train --load-dir, or give --step {saved} to go on from there."
        )
    _place(config, folder, out)
    _use_frames(config, options.image_size, data)
    config.load_checkpoint = checkpoint
    config.max_num_iterations = saved + 1 + options.steps
    (_hold if options.method == "hold" else _reweight)(config, saved + 1, options.steps)
    return config


def _place(config: Consistent4DTrainerConfig, folder: Path, out: Path | None) -> None:
    """Let a run train in a new folder, on this machine and without a viewer.

    Raises:
        InputError: that would be inside of the old run, or its names are no names of folders.
    """
    config.set_experiment_name()
    names = (str(config.experiment_name), str(config.method_name))
    for name in names:
        if name != Path(name).name:
            raise InputError(f"{folder}: its {CONFIG_FILE} names it {name}, which is no name of a folder: correct it.")
    usual = folder.parents[2] if len(folder.parents) > 2 and folder.parts[-3:-1] == names else folder.parent
    config.output_dir = usual if out is None else expanded(out)
    if config.output_dir.resolve().is_relative_to(folder):
        raise InputError(f"--out {out} is inside of the run, which is left as it is: give another folder.")
    vars(config).pop("opened_in", None)
    # A file from somebody else must not lead out of the new folder.
    config.relative_model_dir, config.logging.relative_log_dir = Path(FOLDER), Path()
    config.load_dir = config.load_step = None
    config.timestamp, config.vis, config.overwrite = TIMESTAMP, "tensorboard", False
    config.steps_per_eval_batch = config.steps_per_eval_image = config.steps_per_eval_all_images = 0
    machine = config.machine
    machine.device_type = "cuda" if torch.cuda.is_available() else "cpu"
    machine.num_devices = machine.num_machines = 1
    machine.machine_rank = 0


def _use_frames(config: Consistent4DTrainerConfig, image_size: int | None, data: Path | None) -> None:
    """Let a run train on `data`, with the camera that it was trained with, and at another size.

    Raises:
        InputError: the frames are gone, are not those of the run, or are smaller than `image_size`.
    """
    parser = config.pipeline.datamanager.dataparser
    before = config.frames_path
    known = before is not None and before.exists()
    if data is None and not known:
        raise InputError(f"the frames of this run are no longer at {before}: say with --data where they are.")
    earlier = config.sequence() if known else None
    if data is not None:
        config.use_data(expanded(data))
    sequence = config.sequence()
    if earlier is None:
        warn(f"{before} is gone: whether {data} shows the same moments from the same camera cannot be checked.")
    elif data is not None:
        _check_same_moments(earlier, sequence)
        config.fix_camera(earlier)
    size, side = image_size or parser.image_size, source_side(sequence.input_view.frames)
    trained = parser.image_size if earlier is None else min(parser.image_size, source_side(earlier.input_view.frames))
    if side < min(size, trained) or (image_size is not None and side < size and size > parser.image_size):
        raise InputError(
            f"the frames of {sequence.source} are {side} pixels large, too small for this run or --image-size: give "
            f"frames of at least {size} pixels with --data, or an --image-size of at most {side}."
        )
    parser.image_size = size
    plan = config.pipeline.datamanager.plan
    plan.reference_sizes, plan.reference_rays = (parser.image_size,), plan.reference_rays or REFERENCE_RAYS


def _check_same_moments(earlier: FrameSequence, later: FrameSequence) -> None:
    """Raises: InputError: two sequences differ in the number or the times of their frames."""
    before, after = earlier.frame_times.times, later.frame_times.times
    if len(before) != len(after):
        raise InputError(
            f"{later.source} holds {len(after)} frames, but the run was trained on {len(before)}: give the same frames."
        )
    index = next((i for i, (a, b) in enumerate(zip(before, after, strict=True)) if abs(a - b) > TIME_TOLERANCE), None)
    if index is not None:
        raise InputError(
            f"{later.source}: frame {index} is at {after[index]:.3f} of the sequence, but at {before[index]:.3f} in "
            "that of the run: give frames of the same moments."
        )


def _hold(config: Consistent4DTrainerConfig, begin: int, steps: int) -> None:
    """Hold what the object looks like now from everywhere; no prior takes part."""
    config.pipeline.targets.imagine.steps = 0
    hold = config.pipeline.targets.hold
    hold.begin_step, hold.steps, hold.rgb_factor = begin, steps, RGB_FACTOR
    config.pipeline.guidance.kind = config.pipeline.interpolation.kind = "none"


def _reweight(config: Consistent4DTrainerConfig, begin: int, steps: int) -> None:
    """Distil on, with less weight on distillation and more on the input view.

    Raises:
        InputError: there is no prior.
    """
    if config.pipeline.guidance.kind == "none":
        raise InputError("--method reweight distils a prior, and this run was trained without one: use --method hold.")
    config.pipeline.targets.imagine.steps = config.pipeline.targets.hold.steps = 0
    weights = config.pipeline.model.loss_weights
    weights.sds = tuple(SDS_FACTOR * weight for weight in weights.sds)
    weights.rgb = tuple(RGB_FACTOR * weight for weight in weights.rgb)


@torch.no_grad()
def measured(pipeline: Consistent4DPipeline) -> dict[str, float]:
    """PSNR of the input view and, with ground truth, PSNR, SSIM and silhouette IoU of novel views, by name.

    They are means over `MEASURED_FRAMES` frames of each view, at the size of the frames.
    """
    training, settings = pipeline.training, pipeline.model.config
    renders_normals, settings.render_normals = settings.render_normals, False  # They would take most of the time.
    pipeline.eval()
    data, last = pipeline.datamanager, pipeline.datamanager.num_frames - 1
    chosen = torch.linspace(0, last, min(MEASURED_FRAMES, last + 1)).round().long().tolist()
    views = novel_views(data)
    figures = {"input-view PSNR (dB)": average(list(measure(pipeline.model, data, [input_view(data)], chosen))).psnr}
    if views:
        novel = average(list(measure(pipeline.model, data, views, chosen)))
        figures |= {"novel-view PSNR (dB)": novel.psnr, "novel-view SSIM": novel.ssim}
        figures["novel-view silhouette IoU"] = novel.iou
    pipeline.train(training)
    settings.render_normals = renders_normals
    return figures
