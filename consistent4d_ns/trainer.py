"""Nerfstudio's trainer with a fair lock for the viewer, atomic checkpoints and a clean exit on Ctrl-C and SIGTERM."""

from __future__ import annotations

import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Literal, NoReturn, cast

import torch
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.engine.trainer import TRAIN_INTERATION_OUTPUT, Trainer, TrainerConfig
from nerfstudio.utils.comms import is_main_process
from nerfstudio.utils.decorators import check_main_thread
from nerfstudio.viewer.viewer import Viewer
from torch import Tensor

from consistent4d_ns.device.cpu import keep_freed_memory, return_freed_memory_now_and_then
from consistent4d_ns.device.cuda import has_no_order, take_sums_in_one_order, use_device
from consistent4d_ns.device.memory import lacks_memory
from consistent4d_ns.device.updates import FiniteUpdates
from consistent4d_ns.errors import ENDING, Ended, InputError, code_of, end_by_signal, hide_nerfstudio_warnings
from consistent4d_ns.files.checkpoints import (
    check_steps_left,
    checkpoint_path,
    is_last,
    list_checkpoints,
    newest_whole,
    read_checkpoint,
    resumed_checkpoint,
    write_checkpoint,
)
from consistent4d_ns.files.event_files import PatientFile
from consistent4d_ns.files.locks import TrainingLock
from consistent4d_ns.files.outputs import remove_scratch
from consistent4d_ns.memory_advice import EVALUATING, LOADING, advice
from consistent4d_ns.messages import say, warn
from consistent4d_ns.nerfstudio_internals import (
    close_logs,
    leave_out_of_step_time,
    replace_event_files,
    set_total_steps,
    steps_left,
)
from consistent4d_ns.pipeline import Consistent4DPipeline
from consistent4d_ns.record.report import FILES, TrainingReport, warn_about_failures
from consistent4d_ns.targets.stages import TargetStages
from consistent4d_ns.training_state import TrainingState
from consistent4d_ns.viewer.fair_lock import FairLock

TRAIN_SCRIPT = "nerfstudio.scripts.train"
"""Module of `ns-train`."""
ALL_DONE = "All steps are done; stopped before the plot and the contact sheet, which are left out."
"""What is said where training is ended after its last step."""


class Consistent4DTrainer(Trainer):
    """Trainer in which training steps and the viewer's frames alternate.

    A frame waits for no more than one step, and a step for no more than one frame of each open page. How often there is
    a frame, `viewer.frames` decides.
    """

    def __init__(self, config: TrainerConfig, local_rank: int = 0, world_size: int = 1) -> None:
        hide_nerfstudio_warnings()
        super().__init__(config, local_rank, world_size)
        use_device(self.device)  # Nerfstudio leaves the current one at the first on every rank
        if cast(Any, config).deterministic and self.device.startswith("cuda"):
            take_sums_in_one_order()
        if self.device == "cpu":
            keep_freed_memory()
        # The viewer, which is set up later, takes the lock from here.
        self.train_lock: Any = FairLock()
        self.report: TrainingReport | None = None
        self.last_step: int | None = None
        """The latest step of this training that is complete."""
        self._seconds_left_out = 0.0
        """Time of making target views that is left out of the log already."""
        self.interruption: KeyboardInterrupt | None = None
        """What asked for an end after the current step: Ctrl-C or a signal."""
        self.unsaved: InputError | None = None
        """Error of the latest checkpoint, if it could not be saved."""
        self.updates: list[FiniteUpdates] = []
        """Leave out the updates of steps whose gradients are not finite."""
        self.is_past_last_save = False
        """Whether all steps are done, and no further checkpoint is to be saved."""
        self.stuck: set[Path] = set()
        """Earlier checkpoints that cannot be removed."""
        self.evaluating = False
        """Whether an evaluation for the log is under way; also after an error meanwhile."""
        self.folder_lock: TrainingLock | None = None
        """Keeps other trainings out of the run's folder, from `setup` to the end of `train`."""

    @property
    def targets(self) -> TargetStages:
        """The stages of training that fit target views."""
        return cast(Consistent4DPipeline, self.pipeline).targets

    def setup(self, test_mode: Literal["test", "val", "inference"] = "val") -> None:
        """Build the pipeline, load the checkpoint to resume from, open the logs; in the main process also the report.

        Raises:
            InputError: something that the configuration names cannot be used, or another process trains in the folder.
        """
        close_logs()
        if is_main_process():
            self.folder_lock = TrainingLock(self.base_dir)
            remove_scratch(self.base_dir, (self.checkpoint_dir.name, *FILES))
        try:
            with end_on_interrupt("stopped before the first step."), memory_for(lambda: LOADING), order_of_sums():
                super().setup(test_mode)
                self.enter_folder()
        except (InputError, SystemExit):
            self.discard_folder()
            raise
        self.updates = [FiniteUpdates(optimizer) for optimizer in self.optimizers.optimizers.values()]
        for optimizer in self.optimizers.optimizers.values():
            scale_updates(optimizer, lambda: self.targets.rate_factor(self.step))
        replace_event_files(lambda name: PatientFile(name, events_left_out))
        set_total_steps(self.config.max_num_iterations)
        if self.report is not None:
            self.callbacks += self.report.callbacks()
            self.callbacks.append(TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN], self.say_next))

    def enter_folder(self) -> None:
        """Read the losses of the steps before; then, as everything is loaded, make the folder this run's.

        Raises:
            InputError: it cannot be changed, or holds something else in place of the losses.
        """
        if not is_main_process():
            return
        report = TrainingReport(cast(TrainingState, self.pipeline), self.config)
        if self._start_step > 0:
            report.history.begin(self._start_step)
        cast(Any, self.config).enter()
        self.report = report

    def say_next(self, step: int) -> None:
        """Say how to look at the run that is finished."""
        if is_ns_train():
            say(f"Next: consistent4d view {shlex.quote(str(self.base_dir))}")

    def discard_folder(self) -> None:
        """Remove the run's folder, if it was made for this training, which does not begin; and those made around it."""
        if not is_main_process():
            return
        if self.folder_lock is not None:
            self.folder_lock.release()
        close_logs()
        run, *around = vars(self.config).pop("folders_made", ()) or (None,)
        if run is not None:
            shutil.rmtree(run, ignore_errors=True)
        for folder in around:
            with suppress(OSError):  # Something else is in it by now.
                folder.rmdir()

    def _load_checkpoint(self) -> None:
        """Resume from the checkpoint that the configuration names, if any (in place of Nerfstudio 1.1.5's).

        Raises:
            InputError: there is none, it is damaged, or it is that of another model.
        """
        config = self.config
        file = resumed_checkpoint(config.load_dir, config.load_step, config.load_checkpoint)
        if file is None:
            return
        state = read_checkpoint(file)
        try:
            self.pipeline.load_pipeline(state["pipeline"], state["step"])
            self.targets.load(state.get("targets"), self.device)
            self.load_optimizers(state["optimizers"])
            if config.load_scheduler:
                self.optimizers.load_schedulers(state.get("schedulers", {}))
            self.grad_scaler.load_state_dict(state["scalers"])
        except (RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{file} does not fit this method and its options: {reason}") from error
        check_steps_left(file, state["step"], config.max_num_iterations)
        self._start_step = state["step"] + 1
        say(f"Resuming from {file}: steps {self._start_step} to {config.max_num_iterations - 1} are left.")

    def load_optimizers(self, state: dict[str, Any]) -> None:
        """Go on with the running means of a checkpoint, and with the settings of this training's options.

        What a scheduler decides goes on as it was.
        """
        self.optimizers.load_optimizers(state)
        for name in self.optimizers.optimizers.keys() - self.optimizers.schedulers.keys():
            given = vars(self.optimizers.config[name]["optimizer"])
            for group in self.optimizers.optimizers[name].param_groups:
                group.update({key: given[key] for key in group.keys() & given.keys()})

    def save_checkpoint(self, step: int) -> None:
        """Save everything that training goes on from, whole or not at all; on a full disk training goes on.

        Args:
            step: The latest step that is complete.

        Raises:
            KeyboardInterrupt: all steps are done, and somebody has asked for an end meanwhile.
        """
        self.write_state(step)
        if self.training_state == "completed":
            self.is_past_last_save = True
            if self.interruption is not None:
                raise self.interruption

    @check_main_thread
    def write_state(self, step: int) -> None:
        """Write the checkpoint of a step; say so where that is not possible."""
        if self.report is not None:
            self.report.save_history()  # Resumed from here, the run has the losses of all steps before.
        path = checkpoint_path(self.checkpoint_dir, step)
        state = {
            "step": step,
            "pipeline": self.pipeline.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.optimizers.items()},
            "schedulers": {name: scheduler.state_dict() for name, scheduler in self.optimizers.schedulers.items()},
            "scalers": self.grad_scaler.state_dict(),
        }
        targets = self.targets.state_after(step)
        if targets is not None:
            state["targets"] = targets
        try:
            write_checkpoint(path, state)
        except InputError as error:
            self.unsaved = error
            warn(f"{error} {kept(self.checkpoint_dir)}")
            return
        self.unsaved = None
        if self.config.save_only_latest_checkpoint:
            self.remove_others(path)

    def remove_others(self, newest: Path) -> None:
        """Remove all checkpoints but the newest; one that cannot be removed is named once."""
        for other in list_checkpoints(self.checkpoint_dir).values():
            if other.name == newest.name or other in self.stuck:
                continue
            try:
                other.unlink(missing_ok=True)
            except OSError as error:
                self.stuck.add(other)
                warn(f"{other} cannot be removed ({error.strerror}): remove it by hand.")

    def train(self) -> None:
        """Train. Ctrl-C and the signals of `errors.ENDING` end it after the current step, with a checkpoint.

        Raises:
            InputError: the last checkpoint could not be saved.
            SystemExit: 130 on Ctrl-C, 128 plus the number of a signal.
        """
        with self.catch_interrupts():
            try:
                with steps_left(self.config, self._start_step), memory_for(self.phase), order_of_sums():
                    super().train()
            except InputError as error:
                self.keep_what_is_done()
                raise InputError(f"{error} {kept(self.checkpoint_dir)}") from error
            except KeyboardInterrupt as interruption:
                self.end_at_once(interruption)
            finally:
                if self.folder_lock is not None:
                    self.folder_lock.release()
        if self.unsaved is not None:
            raise self.unsaved

    def train_iteration(self, step: int) -> TRAIN_INTERATION_OUTPUT:
        """One training step.

        Raises:
            InputError: too many steps in a row had to be skipped.
        """
        result = super().train_iteration(step)
        self.last_step = step
        self.watch(step, result[2])
        if self.device == "cpu":
            return_freed_memory_now_and_then()
        return result

    def watch(self, step: int, metrics: dict[str, Tensor]) -> None:
        """Count a step that was skipped, and look from time to time how training goes.

        Raises:
            InputError: too many steps in a row had to be skipped.
        """
        pipeline = cast(Consistent4DPipeline, self.pipeline)
        soundness, opacity = pipeline.soundness, metrics["opacity"]
        skipped = [update.found for update in self.updates if update.found is not None]
        any_skipped = torch.stack(skipped).amax() if skipped else torch.zeros_like(opacity)
        soundness.after_step(pipeline.step_kind, any_skipped, opacity)
        metrics["skipped_steps"] = soundness.skipped
        figures = soundness.look(step)
        if figures is None:
            return
        for line in soundness.warnings(step, figures) if is_main_process() else ():
            warn(f"step {step}: {line}")
        refusal = soundness.refusal(figures, cast(Any, self.config).max_skipped_steps)
        if refusal is not None:
            raise InputError(f"training ends after step {step}: {refusal}; {pipeline.likely_cause()}.")

    def phase(self) -> tuple[str, str]:
        """What training is doing, and which options need less memory."""
        if self.evaluating:
            return EVALUATING
        pipeline = cast(Consistent4DPipeline, self.pipeline)
        return advice(pipeline.config, self.step, pipeline.step_kind, self.targets.making)

    def eval_iteration(self, step: int) -> None:
        """Evaluate for the log, where it is time."""
        self.evaluating = True
        super().eval_iteration(step)
        self.evaluating = False

    def keep_what_is_done(self) -> None:
        """Save a checkpoint of the latest complete step, before training ends with an error."""
        if self.last_step is not None and self.training_state != "completed":
            with memory_for(lambda: ("saving", "the last checkpoint stays")), warn_about_failures():
                self.save_checkpoint(self.last_step)

    def _update_viewer_state(self, step: int) -> None:
        """After a training step and before it is logged: its time counts without that of making target views."""
        seconds = self.targets.seconds_making - self._seconds_left_out
        if seconds > 0.0:
            leave_out_of_step_time(seconds, step)
            self._seconds_left_out += seconds
        super()._update_viewer_state(step)

    @contextmanager
    def catch_interrupts(self) -> Iterator[None]:
        """Let Ctrl-C or a signal end training after the current step; where there are several processes, each at once.

        A program that was started to ignore one of them, as in the background of a script, goes on ignoring it.
        """
        in_main_thread = threading.current_thread() is threading.main_thread()
        if self.world_size > 1 or not in_main_thread:
            yield
            return
        previous = {number: signal.getsignal(number) for number in (signal.SIGINT, *ENDING)}
        usual = (signal.default_int_handler, signal.SIG_DFL, end_by_signal)
        taken = {number: handler for number, handler in previous.items() if handler in usual}
        for number in taken:
            signal.signal(number, self.interrupt)
        try:
            yield
        finally:
            for number, handler in taken.items():
                signal.signal(number, handler)

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """On Ctrl-C or a signal: stop after this step and its checkpoint; before the first and after the last, at once.

        At once, too, on Ctrl-C the second time; a signal may come twice from the same sender.
        """
        by_key = number == signal.SIGINT
        if self.interruption is not None and not by_key:
            return
        interruption = KeyboardInterrupt() if by_key else Ended(number)
        if self.interruption is not None or self.last_step is None or self.is_past_last_save:
            raise interruption
        self.interruption, self.stop_training = interruption, True

    def _after_train(self) -> None:
        """End training (in place of Nerfstudio 1.1.5's, which comes here on `stop_training`, too)."""
        if self.interruption is None or self.last_step is None:
            return super()._after_train()
        self.save_checkpoint(self.last_step)
        self.is_past_last_save = is_last(self.last_step, self.config.max_num_iterations)
        self.exit_with(f"Stopped after step {self.last_step}.", self.interruption)

    def _train_complete_viewer(self) -> None:
        """After training: keep the viewer open until Ctrl-C, and say so."""
        if isinstance(self.viewer_state, Viewer):
            server = self.viewer_state.viser_server
            say(f"The viewer stays open at http://localhost:{server.get_port()}; Ctrl-C ends it.")
        super()._train_complete_viewer()

    def end_at_once(self, interruption: KeyboardInterrupt) -> None:
        """Exit within a step; a viewer that is left open after training ends as it should."""
        if self.training_state == "completed" and self.report is not None and self.report.is_finished:
            return
        self.exit_with(f"Stopped in step {self.step}.", interruption)

    def exit_with(self, message: str, interruption: KeyboardInterrupt) -> NoReturn:
        """End the program with one line, without Nerfstudio's table of timings."""
        self.config.logging.profiler = "none"
        if self.local_rank == 0:
            is_done = self.is_past_last_save and self.unsaved is None
            further = "" if is_done else way_on(self.checkpoint_dir)
            say(f"{ALL_DONE if is_done else message} {kept(self.checkpoint_dir)}{further}")
        raise SystemExit(code_of(interruption))


def scale_updates(optimizer: torch.optim.Optimizer, factor: Callable[[], float]) -> None:
    """Make every update with the learning rate times `factor()`; what schedulers and checkpoints see is unchanged."""
    rates: list[Any] = []

    def before(*_: Any) -> None:
        rates[:] = [group["lr"] for group in optimizer.param_groups]
        scale = factor()
        for group in optimizer.param_groups if scale != 1.0 else ():
            group["lr"] = group["lr"] * scale

    def after(*_: Any) -> None:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)


@contextmanager
def memory_for(phase: Callable[[], tuple[str, str]]) -> Iterator[None]:
    """Say what was done when memory was too little, and what helps; `phase` gives both.

    Raises:
        InputError: memory is too little.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not lacks_memory(error):
            raise
        doing, remedy = phase()
        asked = str(error).split(". ")[0].strip() or type(error).__name__
        raise InputError(f"out of memory while {doing} ({' '.join(asked.split())[:160]}): {remedy}.") from error


@contextmanager
def order_of_sums() -> Iterator[None]:
    """Say which of torch's functions has no order of sums, where `deterministic` asks for one.

    Raises:
        InputError: there is one.
    """
    try:
        yield
    except RuntimeError as error:
        if not has_no_order(error):
            raise
        function = str(error).split()[0]
        raise InputError(
            f"--deterministic True: torch {torch.__version__} has no deterministic {function}, which these options "
            "need on this GPU: leave --deterministic out, or the options that differ from the method's."
        ) from error


def events_left_out(error: OSError) -> None:
    """Say that there will be gaps in TensorBoard's curves."""
    warn(f"TensorBoard's events cannot be written ({error.strerror}) and are left out until they can.")


def kept(folder: Path) -> str:
    """A sentence that names the last checkpoint of a run that is whole."""
    last = newest_whole(folder)
    return f"The last checkpoint is {last}." if last else "There is no checkpoint yet."


def way_on(folder: Path) -> str:
    """What to add about going on with a run that has a checkpoint, where `ns-train` trains it."""
    return " To go on, add --resume True to the command." if is_ns_train() and newest_whole(folder) else ""


def is_ns_train() -> bool:
    """Whether this process is `ns-train`; `consistent4d demo`, `sweep` and others speak for themselves."""
    return TRAIN_SCRIPT in sys.modules


@contextmanager
def end_on_interrupt(message: str) -> Iterator[None]:
    """Let Ctrl-C end the program with one line and its exit code."""
    try:
        yield
    except KeyboardInterrupt as interruption:
        say(message)
        raise SystemExit(code_of(interruption)) from None
