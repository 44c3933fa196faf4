"""What is relied on inside Nerfstudio is still there: a failure names the entry of `nerfstudio_internals` to revise."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import pytest
import torch
from jaxtyping import Float
from nerfstudio.cameras import cameras
from nerfstudio.configs import external_methods
from nerfstudio.model_components import renderers
from nerfstudio.models.base_model import Model
from nerfstudio.utils import writer
from nerfstudio.viewer import render_state_machine
from nerfstudio.viewer.control_panel import ControlPanel
from nerfstudio.viewer.render_state_machine import RenderStateMachine
from nerfstudio.viewer.viewer import Viewer

from consistent4d_ns import nerfstudio_internals as internals


def test_literals_are_nerfstudio_s():
    assert f"self.last_move_time < {internals.MOVE_PAUSE}" in inspect.getsource(Viewer)
    assert f'ViewerSlider("Time", 0.0, 0.0, 1.0, {internals.TIME_SLIDER_STEP},' in inspect.getsource(ControlPanel)


def test_the_last_thing_that_is_set_up_is_waited_for():
    assert "self.train_util = 0.9\n\n    def update_scene(" in inspect.getsource(Viewer)


def test_threads_are_registered_before_they_are_started():
    source = inspect.getsource(Viewer)
    registered = source.index("self.render_statemachines[client.client_id] = RenderStateMachine(")
    assert registered < source.index("self.render_statemachines[client.client_id].start()")


def test_the_classes_in_annotations_of_rays_are_made_once(monkeypatch: pytest.MonkeyPatch):
    camera = cameras.Cameras(torch.eye(4)[None, :3], 20.0, 20.0, 8.0, 8.0, 16, 16)
    made = []

    class Counting:
        def __getitem__(self, words: tuple[type, str]) -> object:
            made.append(words)
            return Float[words]

    monkeypatch.setattr(cameras, "Float", Counting())
    camera.generate_rays(0)
    before = len(made)
    camera.generate_rays(0)
    assert len(made) > before, "Nerfstudio makes none in each call any more"
    internals.remember_annotations_of_rays()
    camera.generate_rays(0)
    once = len(made)
    internals.remember_annotations_of_rays()
    camera.generate_rays(0)
    assert len(made) == once


def test_methods_to_be_installed_are_listed_without_reading_source_files(monkeypatch: pytest.MonkeyPatch):
    internals.name_callers_quickly()
    monkeypatch.setattr(inspect, "getmodule", lambda *_: pytest.fail("searched all modules for a source file"))
    methods, descriptions = external_methods.get_external_methods()
    assert "in2n" in methods
    assert methods.keys() == descriptions.keys()


def test_naming_a_method_to_be_installed_tells_how(capsys: pytest.CaptureFixture[str]):
    internals.name_callers_quickly()
    method = external_methods.ExternalMethod("how to install it", [("name", "description")])
    with pytest.raises(SystemExit):
        external_methods.ExternalMethodDummyTrainerConfig("name", method)
    assert "how to install it" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (Viewer, ("train_lock", "camera_handles", "hide_images", "show_images", "pause_train", "stats_markdown")),
        (ControlPanel, ("_layer_depth", "train_util", "output_render", "split_output_render")),
        (RenderStateMachine, ("_render_img", "_send_output_to_viewer", "output_keys", "target_fps", "running")),
        (Model, ("device_indicator_param",)),
        (renderers, ("BACKGROUND_COLOR_OVERRIDE",)),
    ],
)
def test_names_are_there(owner: object, names: tuple[str, ...]):
    source = inspect.getsource(owner)  # type: ignore[arg-type]
    assert [name for name in names if name not in source] == [], f"seen in Nerfstudio {internals.VERSION}"


def test_time_that_was_no_training_is_not_logged(monkeypatch: pytest.MonkeyPatch):
    """The remaining time follows; neither the mean nor the event with that time is left."""
    events: dict[str, object] = {}
    monkeypatch.setattr(writer, "EVENT_STORAGE", [])
    monkeypatch.setattr(writer, "GLOBAL_BUFFER", {"events": events, "max_iter": 100, "max_buffer_size": 20})
    monkeypatch.setattr(internals, "GLOBAL_BUFFER", writer.GLOBAL_BUFFER)
    internals.leave_out_of_step_time(1.0, 0)
    assert not writer.EVENT_STORAGE
    writer.put_time(writer.EventName.ITER_TRAIN_TIME, 90.5, 0, update_eta=True)
    internals.leave_out_of_step_time(90.0, 0)
    assert events["Train Iter (time)"] == {"buffer": [0.5], "avg": 0.5}
    assert {event["name"]: event["event"] for event in writer.EVENT_STORAGE} == {
        "Train Iter (time)": 0.5,
        "ETA (time)": 50.0,
    }
    assert len(writer.EVENT_STORAGE) == 2


def test_frames_of_a_training_that_stands_still_are_not_kept(monkeypatch: pytest.MonkeyPatch):
    """Nothing writes the log meanwhile; the mean has all of them."""
    events: list[dict[str, object]] = []
    buffer = {"events": {}, "max_iter": 100, "max_buffer_size": 20}
    monkeypatch.setattr(writer, "EVENT_STORAGE", events)
    monkeypatch.setattr(writer, "GLOBAL_BUFFER", buffer)
    monkeypatch.setattr(render_state_machine, "writer", writer)
    internals.replace_render_threads(SimpleNamespace(render_statemachines={}), lambda _: None)  # type: ignore[arg-type]
    times = render_state_machine.writer
    assert times.is_initialized()
    for number in range(1, 1001):
        times.put_time(name=writer.EventName.VIS_RAYS_PER_SEC, duration=float(number), step=7, avg_over_steps=True)
    assert [(event["step"], event["event"]) for event in events] == [(7, 1.0)]
    assert buffer["events"] == {"Vis Rays / Sec": {"buffer": [float(n) for n in range(981, 1001)], "avg": 990.5}}
    times.put_time(name=writer.EventName.VIS_RAYS_PER_SEC, duration=1.0, step=8, avg_over_steps=True)
    assert [event["step"] for event in events] == [7, 8]
    assert "writer.put_time(\n                name=EventName.VIS_RAYS_PER_SEC" in inspect.getsource(RenderStateMachine)
