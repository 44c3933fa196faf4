"""The configuration of a training run: validated before training starts, and saved portably."""

from __future__ import annotations

import copy
import dataclasses
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, cast

import torch
import yaml
from nerfstudio.configs.base_config import LocalWriterConfig
from nerfstudio.engine.optimizers import AdamOptimizerConfig
from nerfstudio.engine.trainer import TrainerConfig
from torch import nn

from consistent4d_ns.checks.config import check_config
from consistent4d_ns.checks.options import check_options
from consistent4d_ns.data.dataparser import CAMERA, FrameSequence, FrameSequenceDataParserConfig
from consistent4d_ns.data.orbit import Orbit
from consistent4d_ns.device.kernels import has_triton
from consistent4d_ns.errors import InputError, show_input_errors_in_one_line
from consistent4d_ns.files.checkpoints import (
    NAME,
    check_steps_left,
    choose_checkpoint,
    list_checkpoints,
    newest_whole,
    resumed_checkpoint,
    step_of,
)
from consistent4d_ns.files.config_files import CONFIG_FILE
from consistent4d_ns.files.earlier_runs import frames_named, latest_run, trained_on
from consistent4d_ns.files.fingerprints import differing, fingerprint
from consistent4d_ns.files.locks import TrainingLock
from consistent4d_ns.files.names import absolute, expanded
from consistent4d_ns.files.outputs import refusals
from consistent4d_ns.guidance.bundled_prior import NAME as BUNDLED
from consistent4d_ns.messages import say, warn
from consistent4d_ns.nerfstudio_internals import TrainingLog, config_being_opened
from consistent4d_ns.pipeline import Consistent4DPipelineConfig
from consistent4d_ns.record.effort import EFFORT
from consistent4d_ns.record.entry import Entry
from consistent4d_ns.record.frames import FRAMES, read_frames, write_frames
from consistent4d_ns.record.history import last_step
from consistent4d_ns.record.report import HISTORY
from consistent4d_ns.trainer import Consistent4DTrainer

DIGITS = 5
"""Decimals with which the camera is stored."""
LONGEST_NAME = 50
"""Characters of a prompt that become the name of its runs' folder."""
TIMESTAMP = "{timestamp}"
"""Placeholder for the time at which a run starts."""


@dataclass
class FieldOptimizerConfig(AdamOptimizerConfig):
    """Adam as the method uses it (method.md section 8)."""

    lr: float = 0.01
    """Learning rate, constant."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Decay rates of the running means of the gradient and of its square."""

    def setup(self, params: list[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser; on a CUDA device or the CPU one that updates everything in one kernel."""
        settings = {name: value for name, value in vars(self).items() if name not in ("_target", "max_norm")}
        fused = True if all(p.device.type in ("cuda", "cpu") for p in params) else None
        return self._target(params, fused=fused, **settings)


@dataclass
class TrainingLogConfig(LocalWriterConfig):
    """The log on the terminal."""

    _target: type = field(default_factory=lambda: TrainingLog)
    """Class to instantiate."""
    enable: bool = True
    """Whether training is logged on the terminal."""


@dataclass
class Consistent4DTrainerConfig(TrainerConfig):
    """Nerfstudio's trainer with this method's pipeline."""

    _target: type = field(default_factory=lambda: Consistent4DTrainer)
    """Class to instantiate."""
    pipeline: Consistent4DPipelineConfig = field(default_factory=Consistent4DPipelineConfig)
    """Data, model and priors."""
    overwrite: bool = False
    """Train anew in the folder of an earlier run (the same `--timestamp`): its checkpoints and losses are deleted."""

    resume: bool = False
    """Go on with the latest run of this method on these frames, in its folder, from its newest whole checkpoint; with a
    `--timestamp` with that run. If there is no checkpoint yet, train from the start."""

    max_skipped_steps: int = 100
    """Steps in a row of one kind (input view, distilled views, target views) that may be skipped because a gradient is
    not finite; then training ends."""

    deterministic: bool = False
    """Take all sums on a CUDA device in one order: the same training, resumed or not, gives the same losses and weights
    to the last bit on the same kind of GPU and the same versions; steps take longer. On a CPU this is so by itself."""

    # Not options, hence without annotation; instances have their own values.
    opened_in = cast("Path | None", None)
    """Folder of the config.yml that this was read from, if it was read from one."""
    has_new_timestamp = False
    """Whether the time stamp was generated and may still be changed."""
    folders_made = cast("tuple[Path, ...]", ())
    """The run's folder and those above it that `save_config` created, innermost first."""
    entry = cast("Entry | None", None)
    """What `save_config` left to be done in the folder of an earlier run."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Called when a YAML file is read, also by Nerfstudio's commands, and when a configuration is copied.

        Raises:
            InputError: it holds something that does not belong there, or the run that is opened has no checkpoint or
                no frames.
        """
        show_input_errors_in_one_line()
        vars(self).update(state)
        check_config(self)
        file = config_being_opened()
        if file is not None:
            self.open_in(file.parent)
            self.check_frames()
            self.load_step = step_of(choose_checkpoint(self.get_checkpoint_dir()))

    def set_experiment_name(self) -> None:
        """Name the run after what it is trained on: the folder, the file without its suffix, or the prompt."""
        path = self.pipeline.datamanager.data
        if self.experiment_name is None and not self.has_frames:
            self.experiment_name = name_of_prompt(self.prompt or "")
        if self.experiment_name is None and path is not None and path.is_file():
            self.experiment_name = path.stem
        super().set_experiment_name()

    def set_timestamp(self) -> None:
        """Called first by `ns-train`: validate the options and set the time stamp.

        Raises:
            InputError: an option cannot be used, or the folder is that of another run.
        """
        self.prepare()
        if self.timestamp == TIMESTAMP:
            super().set_timestamp()
            self.has_new_timestamp = True
        elif not self.has_new_timestamp and self.get_base_dir().exists():
            self.check_earlier_run(self.get_base_dir())

    def save_config(self) -> None:
        """Claim the run's folder, and save this there as config.yml, with absolute paths.

        In the folder of an earlier run, `enter` does so once everything is loaded: a training that cannot begin leaves
        that run as it is.

        Raises:
            InputError: an option or the frame of a static object cannot be used, the folder is that of another run, or
                it cannot be written.
        """
        vars(self).pop("entry", None)  # what an earlier call left to be done
        self.prepare()
        sequence = self.parser()
        self.fix_camera(sequence)
        if self.pipeline.model.is_static and isinstance(sequence, FrameSequence):
            self.say_which_frame(sequence)
        frames = fingerprint(sequence.frame_files()) if isinstance(sequence, FrameSequence) else None
        made, replaced = self.claim_folder()
        self.overwrite = False  # Applies once: training with the saved file must not overwrite again.
        saved = copy.copy(self)
        saved.load_checkpoint = None  # Likewise: it must not resume again, which would reuse this folder.
        text = yaml.dump(saved, Dumper=ConfigDumper)
        self.entry = Entry(
            self.get_base_dir() / CONFIG_FILE, text, frames if self.machine.machine_rank == 0 else None, replaced
        )
        if made:
            self.enter()
        if self.machine.device_type == "cpu" and self.pipeline.guidance.kind != "none" and not self.uses_bundled_prior:
            static = self.pipeline.model.is_static
            small = "consistent4d-image-mini, which reads an image," if static else "consistent4d-mini"
            warn(f"no GPU is used, and on a CPU such a prior takes minutes for a step; {small} trains there.")
        camera, what = self.pipeline.datamanager.dataparser, "Input camera" if self.has_frames else "Front view"
        say(
            f"{what}: {camera.elevation:g} degrees above the object, at distance {camera.distance:g}, with a field of "
            f"view of {camera.fovy:g} degrees."
        )
        self.folders_made = made

    def enter(self) -> None:
        """Save this as config.yml, unless that is done; a run that is replaced loses its checkpoints and losses.

        Raises:
            InputError: the folder cannot be changed.
        """
        entry = vars(self).pop("entry", None)
        if entry is not None:
            entry.make()

    def prepare(self) -> None:
        """Check the options, make paths absolute, and find the checkpoint to resume from.

        Raises:
            InputError: an option cannot be used.
        """
        show_input_errors_in_one_line()
        check_options(self)
        self.pipeline.model.check()
        self.check_order_of_sums()
        self.check_prompt()
        self.check_data()
        self.check_frame_count()
        self.pipeline.datamanager.plan.check()
        self.pipeline.guidance.check()
        self.pipeline.targets.check(self.pipeline.guidance)
        make_paths_absolute(self)
        if self.resume:
            self.resume_latest()
        self.load_checkpoint = resumed_checkpoint(self.load_dir, self.load_step, self.load_checkpoint)
        self.load_dir = self.load_step = None
        if self.load_checkpoint is not None and NAME.fullmatch(self.load_checkpoint.name):
            check_steps_left(self.load_checkpoint, step_of(self.load_checkpoint), self.max_num_iterations)

    def check_order_of_sums(self) -> None:
        """Raises: InputError: sums are to be taken in one order by something that does not promise to do so."""
        if not self.deterministic or self.machine.device_type != "cuda":
            return
        if self.pipeline.model.implementation == "tcnn":
            raise InputError(
                "--deterministic True: tinycudann does not promise the same sums each time; leave "
                "--pipeline.model.implementation at torch."
            )
        interpolation = self.pipeline.interpolation
        if interpolation.kind != "none" and interpolation.grad_through_rife:
            raise InputError(
                "--deterministic True: torch has no deterministic gradient of RIFE's warping; leave "
                "--pipeline.interpolation.grad-through-rife at False."
            )
        if not has_triton():
            raise InputError("--deterministic True needs Triton on a GPU, which PyTorch has on Linux; leave it out.")

    def resume_latest(self) -> None:
        """Choose run and checkpoint to go on with, where `resume` is on; it is switched off, as it applies once.

        Raises:
            InputError: options contradict each other, or no checkpoint of that run is whole.
        """
        if self.load_dir is not None or self.load_checkpoint is not None or self.overwrite:
            raise InputError(
                "--resume True finds the run by itself: leave out --load-dir, --load-checkpoint, --overwrite."
            )
        self.resume = False
        here = self.get_base_dir()
        if self.timestamp == TIMESTAMP or self.has_new_timestamp:
            found = latest_run(here.parent, self.frames_path, self.prompt, self.relative_model_dir, CONFIG_FILE)
        else:
            found = here if here.is_dir() else None
            if found is not None and not self.has_frames and not trained_on(here / CONFIG_FILE, None, self.prompt):
                raise InputError(f"--resume True: {here} holds no run from this prompt; give another --timestamp.")
        if found is None:
            what = "on these frames" if self.has_frames else "from this prompt"
            say(f"{here.parent} holds no earlier run {what}: training from the start.")
            return
        self.timestamp, self.has_new_timestamp = found.name, False
        if not list_checkpoints(self.get_checkpoint_dir()):
            self.check_never_saved(found)
            say(f"{found} has no checkpoint yet: training from the start in it.")
            self.overwrite = True
            return
        if self.has_other_frames(found):
            raise InputError(
                f"--resume True: {found} was trained on other frames, or another camera, than {self.frames_path} now "
                "holds: leave out --resume and --timestamp to train anew, or give --load-dir "
                f"{shlex.quote(str(found))} in place of --resume to go on with these."
            )
        self.load_checkpoint = choose_checkpoint(self.get_checkpoint_dir())

    def check_never_saved(self, run: Path) -> None:
        """Raises: InputError: a run without checkpoints must have had some, by what is known about it."""
        with refusals(run):
            reached = last_step(run / HISTORY)
        if (run / EFFORT).exists() or (reached is not None and 0 < self.steps_per_save < reached):
            raise InputError(
                f"--resume True: {run} was trained, but {self.get_checkpoint_dir()} holds no checkpoint "
                "(step-*.ckpt): put it back, or give --overwrite True in place of --resume to train from the start."
            )

    def has_other_frames(self, run: Path) -> bool:
        """Whether the frames are others than those that a run was trained on, wherever they were then.

        Where the run does not record them, as in earlier versions, the paths decide, unless its frames are gone, as
        those of a run that was moved.
        """
        if not self.has_frames:
            return False
        earlier = read_frames(run)
        if earlier is not None:
            now = fingerprint(self.sequence().frame_files(), earlier)
            if differing(now, earlier):
                return True
            if now != earlier:  # Copied or touched: the next time, they need not be read again.
                with suppress(InputError):
                    write_frames(run, now)
            return False
        named = frames_named(run / CONFIG_FILE)
        return named is not None and named != self.frames_path and named.exists()

    @property
    def has_frames(self) -> bool:
        """Whether this trains on frames; else on a prompt."""
        return self.pipeline.datamanager.dataparser.has_frames

    def check_prompt(self) -> None:
        """Hand the prompt to the model, where Nerfstudio keeps it.

        Raises:
            InputError: it is missing, or there is one beside frames; or options ask for what needs frames.
        """
        self.prompt = self.pipeline.model.prompt = self.prompt or self.pipeline.model.prompt
        if self.has_frames:
            if self.prompt is not None:
                raise InputError(
                    f"{self.method_name} reads frames, no prompt: leave out --prompt, or train consistent4d-text."
                )
            return
        if not (self.prompt or "").strip():
            raise InputError(
                f'{self.method_name} makes an object from a prompt: give --prompt "a wind-up cat", for example.'
            )
        if self.data is not None or self.pipeline.datamanager.data not in (None, Path()):
            raise InputError(
                f"{self.method_name} reads a prompt, no frames: leave out --data, or train consistent4d-image."
            )
        if self.pipeline.guidance.kind == "none":
            raise InputError(
                f"{self.method_name} learns from its prior alone: leave out --pipeline.guidance.kind none."
            )
        if self.pipeline.datamanager.plan.reference_every:
            raise InputError(
                f"{self.method_name} has no input view to fit: leave --pipeline.datamanager.plan.reference-every at 0."
            )
        for option in ("steps_per_eval_batch", "steps_per_eval_all_images"):
            if getattr(self, option):
                name = option.replace("_", "-")
                raise InputError(f"--{name} compares with frames, and {self.method_name} has none: leave it at 0.")

    def check_data(self) -> None:
        """Raises: InputError: there are no frames; Nerfstudio would take the current folder."""
        manager = self.pipeline.datamanager
        given = self.data is not None or manager.data not in (None, Path())
        if self.has_frames and not given and manager.dataparser.data in (None, Path()):
            what = "an image" if self.pipeline.model.is_static else "a folder of RGBA frames or one animated file"
            raise InputError(f"{self.method_name} reads frames: give {what} with --data.")

    def check_frame_count(self) -> None:
        """Raises: InputError: a field without planes over time is to show more than one frame."""
        parser = self.pipeline.datamanager.dataparser
        if not isinstance(parser, FrameSequenceDataParserConfig):
            return
        count = parser.frame_count
        if self.pipeline.model.is_static and count != 1:
            raise InputError(
                f"{self.method_name} shows an object that does not move, of one frame, but "
                f"--pipeline.datamanager.dataparser.frame-count is {count}: leave it at 1, or train a video with "
                "consistent4d or consistent4d-mini."
            )

    def say_which_frame(self, sequence: FrameSequence) -> None:
        """Say which frame of several is shown; raises what listing them does."""
        frames = sequence.input_view.frames
        if frames.available > 1:
            say(
                f"{frames.source} holds {frames.available} frames, of which {self.method_name} takes one, number "
                f"{frames.indices[0]}: --pipeline.datamanager.dataparser.frame-start N takes another."
            )

    def claim_folder(self) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
        """Create the run's folder, which no other training then gets; that of a resumed run may be reused.

        Returns:
            The folders that were created, innermost first; and files of an earlier run that is replaced.

        Raises:
            InputError: the folder exists, and neither is the run in it resumed nor may it be overwritten.
        """
        is_new = vars(self).pop("has_new_timestamp", False)
        stamp, number, replaced = self.timestamp, 1, ()
        while not (made := create_folder(self.get_base_dir())):
            if not is_new:
                replaced = self.enter_earlier_run(self.get_base_dir())
                break
            number += 1
            self.timestamp = f"{stamp}_{number}"
        return made, replaced

    @property
    def resumes_here(self) -> bool:
        """Whether the run in the folder is resumed."""
        return self.load_checkpoint is not None and self.load_checkpoint.parent == self.get_checkpoint_dir()

    @property
    def reuses_folder(self) -> bool:
        """Whether the run in the folder is resumed, or trained on several machines, the first of which claimed it."""
        return self.resumes_here or self.machine.machine_rank > 0

    def check_earlier_run(self, folder: Path) -> None:
        """Raises: InputError: the run in a folder that exists is neither resumed nor may it be overwritten; or it is
        resumed from a checkpoint before its last, so that two trainings would mix."""
        loaded = self.load_checkpoint
        if loaded is not None and self.resumes_here and NAME.fullmatch(loaded.name):
            later = newest_whole(loaded.parent, after=step_of(loaded))
            if later is not None:
                raise InputError(
                    f"{folder} holds a later checkpoint, {later.name}, than {loaded.name}: leave out --timestamp to go "
                    "on from that one in a new folder, or move the later ones away."
                )
        if not (self.reuses_folder or self.overwrite):
            raise InputError(
                f"{folder} exists already: leave out --timestamp to train in a new folder, give --load-dir "
                f"{shlex.quote(str(folder))} to resume that run, or --overwrite True to replace it (with "
                f"--load-config: set timestamp to '{TIMESTAMP}', or overwrite to true, in a copy of the file)."
            )

    def enter_earlier_run(self, folder: Path) -> tuple[Path, ...]:
        """Use a folder that exists; unless its run is resumed, `overwrite` replaces it.

        Returns:
            The checkpoints and losses of a run that is replaced.

        Raises:
            InputError: neither is the run in it resumed nor may it be overwritten, or it is being trained right now.
        """
        self.check_earlier_run(folder)
        if self.machine.machine_rank == 0:  # The first machine may be training in it for this run.
            TrainingLock(folder).release()
        if self.reuses_folder:
            return ()
        earlier = list_checkpoints(self.get_checkpoint_dir()).values()
        beside = (folder / name for name in (HISTORY, EFFORT, FRAMES))
        return (*earlier, *folder.glob("events.out.tfevents.*"), *beside)

    def get_base_dir(self) -> Path:
        """The run's folder: where it is trained, or where its config.yml was opened."""
        return self.opened_in or super().get_base_dir()

    def get_checkpoint_dir(self) -> Path:
        """The run's checkpoints; where config.yml was copied without them, those it was saved with."""
        beside, original = super().get_checkpoint_dir(), super().get_base_dir() / self.relative_model_dir
        return beside if beside.is_dir() or not original.is_dir() else original

    def open_in(self, folder: Path, data: Path | None = None) -> None:
        """Use what lies in `folder`, where this configuration's file is now; it may have been moved or copied.

        Unless `data` names others, frames that are no longer where they were are looked for beside config.yml, and
        where they would be if they had been moved along with the run.
        """
        if self.method_name is None:
            raise InputError(f"{folder / CONFIG_FILE} names no method: give the {CONFIG_FILE} that ns-train saved.")
        trained_in = super().get_base_dir()
        self.opened_in = folder = expanded(folder).absolute()
        if data is not None and not self.has_frames:
            raise InputError(f"{folder} was trained from a prompt and has no frames: leave out --data.")
        if data is not None:
            self.use_data(expanded(data))
            return
        data = self.frames_path
        if data is None or data.exists():
            return
        places = [folder / data.name]
        if data.is_absolute() and trained_in.is_absolute():
            places.append(Path(os.path.normpath(folder / os.path.relpath(data, trained_in))))
        for place in places:
            if place.exists():
                warn(f"{data} does not exist any more; using the frames in {place}.")
                self.use_data(place)
                return

    @property
    def frames_path(self) -> Path | None:
        """Where the frames are, if there are any and the configuration says so."""
        return (self.data or self.pipeline.datamanager.data) if self.has_frames else None

    @property
    def uses_bundled_prior(self) -> bool:
        """Whether the prior is the small one that comes with this package."""
        return self.pipeline.guidance.prior == BUNDLED

    def parser(self) -> FrameSequence | Orbit:
        """The frames, not yet listed; without frames the cameras around the object."""
        parser = self.pipeline.datamanager.dataparser
        return dataclasses.replace(parser, data=self.frames_path or parser.data).setup()

    def sequence(self) -> FrameSequence:
        """The frames, not yet listed, of a training that has some."""
        sequence = self.parser()
        assert isinstance(sequence, FrameSequence)
        return sequence

    def fix_camera(self, sequence: FrameSequence | Orbit) -> None:
        """Write the camera of a sequence, or of the front view, into the options.

        So a run stays what it is where files beside its frames change.

        Raises:
            InputError: the camera cannot be used.
        """
        parser = self.pipeline.datamanager.dataparser
        for name in CAMERA:
            setattr(parser, name, round(float(getattr(sequence.input_camera, name)[0]), DIGITS))

    def check_frames(self) -> None:
        """Raises: InputError: the frames of a run that one of Nerfstudio's commands opens are gone."""
        frames = self.frames_path
        if frames is not None and not frames.exists():
            raise InputError(
                f"the frames of this run are no longer at {frames}: put them beside {CONFIG_FILE} as "
                f"{self.get_base_dir() / frames.name}, or use `consistent4d render`, `consistent4d view` or "
                f"`consistent4d export` with --data."
            )

    def use_data(self, data: Path) -> None:
        """Take the frames from `data`."""
        self.data = self.pipeline.datamanager.data = self.pipeline.datamanager.dataparser.data = data


def name_of_prompt(prompt: str) -> str:
    """A prompt as the name of a folder: its first words, joined by hyphens."""
    return re.sub(r"\W+", "-", prompt.lower()).strip("-")[:LONGEST_NAME].rstrip("-") or "prompt"


def create_folder(folder: Path) -> tuple[Path, ...]:
    """Create a folder and those above it. Of several processes, one creates it.

    Returns:
        The folders that were missing, innermost first; none if it exists.

    Raises:
        InputError: it cannot be created.
    """
    with refusals(folder):
        missing = tuple(path for path in (folder, *folder.parents) if not path.exists())
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.mkdir()
        except FileExistsError:
            return ()
    return missing


class ConfigDumper(yaml.Dumper):
    """Writes paths as `pathlib.Path`, which every system reads; a system's own path class would not load on others."""


def _represent_path(dumper: yaml.Dumper, path: PurePath) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:python/object/apply:pathlib.Path", list(path.parts))


ConfigDumper.add_multi_representer(PurePath, _represent_path)


def make_paths_absolute(config: Consistent4DTrainerConfig) -> None:
    """Expand `~`, and make every path absolute that a run needs again, from wherever it is opened."""
    for owner, name, path in _paths(config):
        if not name.startswith("relative_") and path != Path():
            setattr(owner, name, absolute(expanded(path)))
    guidance = config.pipeline.guidance
    prior = expanded(Path(guidance.prior))
    if guidance.prior != BUNDLED and prior.exists():
        guidance.prior = str(absolute(prior))


def _paths(config: Any) -> Iterator[tuple[Any, str, Path]]:
    """Every field that holds a path, with its owner and name."""
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        if isinstance(value, Path):
            yield config, entry.name, value
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from _paths(value)
