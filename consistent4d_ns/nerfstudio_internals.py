"""What is used of Nerfstudio beyond its public interface: all of it here, as seen in Nerfstudio 1.1.5.

Each entry says what breaks if Nerfstudio changes it. Nothing of the viewer is imported when this module is.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from traceback import walk_stack
from types import FrameType, ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import nerfstudio.configs.base_config  # noqa: F401  It imports the writer below, which fails the other way round.
from nerfstudio.utils import writer
from nerfstudio.utils.writer import GLOBAL_BUFFER, LocalWriter
from torch import Tensor

from consistent4d_ns.messages import on_a_full_disk

if TYPE_CHECKING:
    import viser
    from nerfstudio.engine.trainer import TrainerConfig
    from nerfstudio.models.base_model import Model
    from nerfstudio.viewer.control_panel import ControlPanel
    from nerfstudio.viewer.viewer import Viewer

VERSION = "1.1.5"
"""The version of Nerfstudio in which everything here was seen."""

# Literals that Nerfstudio has in its code without a name.

MOVE_PAUSE = 0.1
"""Seconds for which training stops after a camera has moved (`Viewer.update_scene`).

If it changes: frames are spaced out a little too early or too late after a camera was moved.
"""
TIME_SLIDER_STEP = 0.01
"""Step of the time slider (`ControlPanel.__init__`), to which a browser may round the times that are set.

If it grows: playback takes rounding for a hand on the slider and stutters.
"""
SETUP_POLL = 1.0 / 30.0
"""Seconds between two looks at whether the viewer is set up."""


# Threads that render, one for each page.


class RenderThreads(dict[int, Any]):
    """In the place of `Viewer.render_statemachines`: Nerfstudio registers a thread, another one is started instead.

    `Viewer.handle_new_client` stores a `RenderStateMachine` here and starts what it then reads back. This does not
    depend on the order of the connect callbacks, which viser 1.x runs at the same time.

    If that changes: pages are rendered by Nerfstudio's own threads, which leave training too little time.
    """

    def __init__(self, make: Callable[[Any], Any]) -> None:
        """`make` gives the thread to be used for a client, not yet started."""
        super().__init__()
        self._make = make

    def __setitem__(self, client_id: int, theirs: Any) -> None:
        super().__setitem__(client_id, self._make(theirs.client))

    def __missing__(self, client_id: int) -> Any:
        # `Viewer._trigger_rerender` asks for every connected client, also for one whose thread is not there yet.
        return _NoThread()


class _NoThread:
    """A page's thread before there is one: it needs no telling, because its first frame shows everything."""

    running = False

    def action(self, action: object) -> None:
        """Ignore it."""


def replace_render_threads(viewer: Viewer, make: Callable[[viser.ClientHandle], Any]) -> None:
    """Have `make` provide the thread that renders for a page, also for pages that are open already.

    Relies on `Viewer.render_statemachines` and on `RenderStateMachine.running`, `.action` and `.client`; see
    `RenderThreads` for what breaks. The subclass in `viewer.frames` overrides `_render_img` and
    `_send_output_to_viewer` and reads `output_keys` and `target_fps`.
    """
    from nerfstudio.viewer import render_state_machine

    render_state_machine.writer = FrameTimes()  # type: ignore[assignment]
    threads: Any = RenderThreads(make)
    present: dict[int, Any] = dict(viewer.render_statemachines)
    viewer.render_statemachines = threads
    for client_id, theirs in present.items():
        theirs.running = False
        theirs.action = lambda _: None  # it would render once more before it looks at `running`
        threads[client_id] = theirs
        threads[client_id].start()


class FrameTimes:
    """In the place of `writer` where frames are rendered (`viewer.render_state_machine`): logs one frame of each step.

    Nerfstudio's module stores an event for every frame until a training step writes all events. While training is
    paused or has ended, or a camera moves, none does, and a page that stays open would fill the memory. The mean speed
    in `GLOBAL_BUFFER`, from which sizes of frames follow, has all frames.
    """

    is_initialized = staticmethod(writer.is_initialized)

    def __init__(self) -> None:
        self._logged: int | None = None

    def put_time(self, name: writer.EventName, duration: float, step: int, avg_over_steps: bool) -> None:
        """Count a frame; `duration` are its rays per second."""
        events = writer.GLOBAL_BUFFER["events"]
        if step != self._logged or name.value not in events:
            self._logged = step
            writer.put_time(name, duration, step, avg_over_steps)
            return
        buffer = [*events[name.value]["buffer"], duration][-writer.GLOBAL_BUFFER["max_buffer_size"] :]
        events[name.value] = {"buffer": buffer, "avg": sum(buffer) / len(buffer)}


# The viewer's state.


def share_lock(viewer: Viewer, lock: Any) -> None:
    """Give a viewer without a trainer the lock that guards the model (`Viewer.train_lock`, annotated as `Lock`).

    If it is no longer read at every use: frames and exports of `ns-viewer` may run at the same time.
    """
    viewer.train_lock = lock


def wait_until_set_up(viewer: Viewer) -> None:
    """Wait for `Viewer.init_scene`, whose last statement creates `Viewer.train_util`.

    If that attribute goes: this never returns, and the panel shows no moving time and no hints.
    """
    while not hasattr(viewer, "train_util"):
        time.sleep(SETUP_POLL)


def follow_train_share(viewer: Viewer) -> None:
    """Copy the slider "Train Util" to `Viewer.train_util`, which asks for frames and which the slider does not reach.

    If that is fixed there: this does nothing. If the attribute goes: the slider has no effect on how often a training
    step asks for a frame.
    """
    viewer.train_util = viewer.control_panel.train_util


def remove_training_cameras(viewer: Viewer) -> None:
    """Remove the picture of every frame from the scene (`Viewer.camera_handles`), and the buttons that show them.

    If the names change: an AttributeError at the start of the viewer.
    """
    for camera in viewer.camera_handles.values():
        camera.remove()
    viewer.camera_handles.clear()
    viewer.hide_images.visible = viewer.show_images.visible = False


def remove_training_buttons(viewer: Viewer) -> None:
    """Hide the buttons that pause and resume training (`Viewer.pause_train`, `.resume_train`).

    If the names change: an AttributeError at the start of the viewer of a finished run.
    """
    viewer.pause_train.visible = viewer.resume_train.visible = False


def place_above_tabs(viewer: Viewer) -> float:
    """Order of the last element above the tabs (`Viewer.stats_markdown`); what comes after it stands before the tabs.

    If it changes: the panel's folders stand elsewhere.
    """
    return viewer.stats_markdown.order


def hide_unused_controls(control_panel: ControlPanel) -> None:
    """Hide what has no use now, above all the time slider where there is no time (`ControlPanel.update_control_panel`).

    Nerfstudio does so only once another element has been changed. If the name changes: an AttributeError at the start
    of the viewer of a static object.
    """
    control_panel.update_control_panel()


def send_depth(control_panel: ControlPanel, wanted: bool) -> None:
    """Whether depth is sent with each frame, so that the object hides what is behind it (`ControlPanel._layer_depth`).

    If the name changes: an AttributeError when the input frame or the occupied cells are switched on.
    """
    control_panel._layer_depth.value = wanted


# The model.


def background_override() -> Tensor | None:
    """The background colour of the viewer's crop, [3] in 0..1 (`renderers.BACKGROUND_COLOR_OVERRIDE`), if there is one.

    If the name changes: an AttributeError at every rendering.
    """
    from nerfstudio.model_components import renderers

    return renderers.BACKGROUND_COLOR_OVERRIDE


def freeze_device_indicator(model: Model) -> None:
    """Take `Model.device_indicator_param`, Nerfstudio's mark of the device, out of training.

    As a parameter that never has a gradient it would make every step of distributed training wait for all other
    processes to say that theirs has none either. If the name changes: an AttributeError when a model is built.
    """
    model.device_indicator_param.requires_grad_(False)


# Imports.

SPLATFACTO = "nerfstudio.models.splatfacto"
"""Module of Nerfstudio's Gaussian splats."""


class _Remembered:
    """In the place of a kind of array of jaxtyping: one class for the same words, not a new one each time."""

    def __init__(self, kind: Any) -> None:
        self._kind, self._classes = kind, dict[Any, Any]()

    def __getitem__(self, words: Any) -> Any:
        if words not in self._classes:
            self._classes[words] = self._kind[words]
        return self._classes[words]


def remember_annotations_of_rays() -> None:
    """Let `Cameras` make the classes in its annotations once.

    `Cameras._generate_rays_from_coords` defines functions inside, whose annotations are evaluated in each call: four
    classes for every picture. They refer to themselves, and `typing` remembers the latest of them for so long that only
    a search through all objects frees them. Python makes one when a quarter of them are new, and imports alone make
    half a million: with a page open, 30 MB of classes an hour add up for three quarters of an hour.

    If it changes: nothing breaks; memory grows as before if the annotations come from elsewhere.
    """
    from nerfstudio.cameras import cameras

    if not isinstance(cameras.Float, _Remembered):
        cameras.Float = _Remembered(cameras.Float)


def import_trainer_lightly() -> None:
    """Import `nerfstudio.engine.trainer` without what takes most of the time and this method does not use.

    Its viewer imports Splatfacto, to ask whether the model is one, which brings gsplat and PyTorch's compiler; its
    pipeline imports torchvision, to save pictures, which brings the compiler as well. The viewer also imports SciPy's
    interpolation, for camera paths. Placeholders stand in for them meanwhile, and do the same later: a module is
    imported once it is used, and a model is a Splatfacto if that has been imported by then. What is imported already,
    as in Nerfstudio's own commands, is left alone.

    If the imports change: the trainer is imported in full, which takes about twice as long.
    """
    placeholders = {module.__name__: module for module in _placeholders() if module.__name__ not in sys.modules}
    sys.modules.update(placeholders)
    try:
        importlib.import_module("nerfstudio.engine.trainer")
    except (ImportError, AttributeError):
        _remove_modules(placeholders)
        importlib.import_module("nerfstudio.engine.trainer")
    finally:
        _remove_modules(placeholders)


def _placeholders() -> Iterator[ModuleType]:
    """Modules that stand in for slow ones."""
    splatfacto: Any = ModuleType(SPLATFACTO)
    splatfacto.SplatfactoModel = _SplatfactoModel
    yield splatfacto
    yield _ImportedWhenUsed("scipy.interpolate")
    torchvision: Any = _ImportedWhenUsed("torchvision")
    torchvision.utils = _ImportedWhenUsed("torchvision.utils")
    if "torchvision" not in sys.modules:
        yield from (torchvision, torchvision.utils)


def _remove_modules(placeholders: dict[str, ModuleType]) -> None:
    for name, module in placeholders.items():
        if sys.modules.get(name) is module:
            del sys.modules[name]


class _InstanceOfSplatfacto(type):
    """Asks the real class, if there is one by now; before, there can be no instance of it."""

    def __instancecheck__(cls, instance: object) -> bool:
        module = sys.modules.get(SPLATFACTO)
        return module is not None and module.SplatfactoModel is not cls and isinstance(instance, module.SplatfactoModel)


class _SplatfactoModel(metaclass=_InstanceOfSplatfacto):
    """In the place of Splatfacto's class where Nerfstudio's viewer asks for it."""


class _ImportedWhenUsed(ModuleType):
    """A module that is imported once anything of it is used."""

    def __getattr__(self, name: str) -> Any:
        _remove_modules({self.__name__: self})
        return getattr(importlib.import_module(self.__name__), name)


def name_callers_quickly() -> None:
    """Let Nerfstudio's list of methods that could be installed learn who calls it without reading source files.

    `configs.external_methods` asks `inspect.stack` 26 times for the name of one calling function, which looks up the
    source of every frame among all imported modules: half of what importing `ns-train` takes. It gets the names alone.

    If that is fixed there: this does nothing. If it asks for more: an AttributeError when `ns-train` is imported.
    """
    from nerfstudio.configs import external_methods

    external_methods.inspect = _NamesOfCallers  # type: ignore[assignment]


class _NamesOfCallers:
    """In the place of the module `inspect`."""

    @staticmethod
    def stack() -> list[SimpleNamespace]:
        """The calling functions by name, the innermost first."""
        return [SimpleNamespace(function=frame.f_code.co_name) for frame, _ in walk_stack(sys._getframe(1))]


# Opening finished runs.


def config_being_opened() -> Path | None:
    """The config.yml that ns-render, ns-eval, ns-viewer or ns-export is opening at this moment, if one is.

    All of them call `nerfstudio.utils.eval_utils.eval_setup(config_path)`, which reads the text and does not say where
    it came from; the frame of that call knows.

    If the names change: these commands look for a run's files where it was trained, as Nerfstudio does by itself.
    """
    for frame in _callers():
        if frame.f_code.co_name == "eval_setup" and frame.f_globals.get("__name__") == "nerfstudio.utils.eval_utils":
            return frame.f_locals.get("config_path")
    return None


def _callers() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


# The log of a training.


def set_total_steps(steps: int) -> None:
    """Tell the log at how many steps training is complete (`writer.GLOBAL_BUFFER["max_iter"]`).

    If the name changes: percentage and remaining time of a resumed run are wrong.
    """
    GLOBAL_BUFFER["max_iter"] = steps


@contextmanager
def steps_left(config: TrainerConfig, first_step: int) -> Iterator[None]:
    """Let `Trainer.train`, which adds `max_num_iterations` to the first step, stop at that total; it is called inside.

    If that is changed there: a resumed run ends too soon.
    """
    total = config.max_num_iterations
    config.max_num_iterations = total - first_step
    try:
        yield
    finally:
        config.max_num_iterations = total


def leave_out_of_step_time(seconds: float, step: int) -> None:
    """Take `seconds` that were no training from the logged time of `step`, and from the remaining time.

    Relies on the running means of `writer.put_time` in `GLOBAL_BUFFER["events"]`, and on `writer.EVENT_STORAGE`, which
    holds what is not written yet. If these change: an error in a step that makes target views.
    """
    names = (writer.EventName.ITER_TRAIN_TIME.value, writer.EventName.ETA.value)
    events = GLOBAL_BUFFER.get("events", {})
    if names[0] not in events:  # Nothing is logged, or not in this process.
        return
    duration = events[names[0]]["buffer"].pop() - seconds
    writer.EVENT_STORAGE[:] = [event for event in writer.EVENT_STORAGE if event["name"] not in names]
    writer.put_time(names[0], duration, step, avg_over_steps=True, update_eta=True)


def replace_event_files(make: Callable[[str], Any]) -> None:
    """Write TensorBoard's events by what `make` gives for the name of a file; it has `write`, `flush` and `close`.

    An exception in the thread that writes them, as on a full disk, ends training at the next event. Relies on
    `writer.EVENT_WRITERS`, on `TensorboardWriter.tb_writer`, and on how TensorBoard's own writers hold each other.

    If that changes: a full disk ends training where TensorBoard is used.
    """
    for each in writer.EVENT_WRITERS:
        with suppress(AttributeError):
            events = each.tb_writer._get_file_writer().event_writer
            events.flush()
            events._async_writer._writer._writer = make(events._file_name)


def close_logs() -> None:
    """Forget the logs of an earlier training in this process (`writer.EVENT_WRITERS`), which would be written on.

    If the names change: an AttributeError when a training is set up.
    """
    writer.EVENT_WRITERS.clear()
    writer.EVENT_STORAGE.clear()


class TrainingLog(LocalWriter):
    """The table of a training on the terminal; one line per logged step where the output is no terminal.

    Nerfstudio moves the cursor up and writes its last ten rows again, whatever it writes to; and it takes the current
    step for one to come, so that the last row says 99.9 %. Relies on `LocalWriter._consolidate_events`, `_print_stats`
    and `stats_to_track`, and on `writer.GLOBAL_BUFFER`.

    If these change: an error in the first logged step.
    """

    def write_stats_log(self, step: int) -> None:
        """Write the row of a step, if it is one to be logged or the last."""
        last = step + 1 == GLOBAL_BUFFER["max_iter"]
        if not last and (step % GLOBAL_BUFFER["steps_per_log"] or step >= GLOBAL_BUFFER["max_iter"]):
            return
        if sys.stdout.isatty():
            super().write_stats_log(0)  # 0 is always logged; the row shows the step of `GLOBAL_BUFFER`.
        else:
            latest, _ = self._consolidate_events()
            with on_a_full_disk():
                print(self.line(latest), flush=True)

    def line(self, latest: dict[str, Any]) -> str:
        """The tracked figures of the latest step with their names, on one line."""
        done, total = GLOBAL_BUFFER["step"] + 1, GLOBAL_BUFFER["max_iter"]
        figures = [_figure(name, value) for name, value in latest.items() if name in self.stats_to_track]
        return ", ".join([f"step {done} of {total} ({done / total:.2%})", *figures])

    def _print_stats(self, latest_map: dict[str, Any], padding: str = " ") -> None:
        step = GLOBAL_BUFFER["step"]
        GLOBAL_BUFFER["step"] = step + 1  # The number of steps that are done.
        try:
            super()._print_stats(latest_map, padding)
        finally:
            GLOBAL_BUFFER["step"] = step


def _duration(seconds: float) -> str:
    """Seconds in words; from a minute on as hours, minutes and seconds."""
    if seconds >= 60:
        return str(timedelta(seconds=round(seconds)))
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _figure(name: str, value: float) -> str:
    """A figure with its name, in the units of Nerfstudio's table."""
    if name.endswith("(time)"):
        return f"{name.removesuffix(' (time)')} {_duration(value)}"
    return f"{name} {writer.human_format(value).strip() if 'Rays' in name else f'{value:.4f}'}"
