"""Frames: what they leave to training, what they are timed by, what they render. By a clock that the tests move."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nerfstudio.viewer.render_state_machine import RenderStateMachine

from consistent4d_ns.viewer import frames as module
from consistent4d_ns.viewer.fair_lock import FairLock
from consistent4d_ns.viewer.frames import Frames, pause_length

OUTPUTS = ("rgb", "depth", "normals")
CAMERA: Any = None


class Clock:
    """Time that passes when somebody sleeps, for all clocks of the module."""

    def __init__(self) -> None:
        self.now = 1000.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def time(self) -> float:
        return self.now

    monotonic = time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock in the place of the module's own, and Nerfstudio's rendering and sending, which take 0.2 and 0.1 s."""
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)

    def render(self: Any, _: object) -> dict[str, Any]:
        clock.sleep(0.2)
        rendered = [name for name in OUTPUTS if name != "normals" or self.viewer.get_model().config.render_normals]
        return {name: torch.tensor(name == "normals") for name in rendered}

    def send(self: Any, outputs: dict[str, Any], _: bool) -> None:
        clock.sleep(0.1)
        self.output_keys = set(outputs)

    monkeypatch.setattr(RenderStateMachine, "_render_img", render)
    monkeypatch.setattr(RenderStateMachine, "_send_output_to_viewer", send)
    return clock


def made(state: str = "training", train_util: float = 0.85, pages: int = 1) -> Any:
    """Frames of one of several pages of a viewer that lacks everything else."""
    panel = SimpleNamespace(train_util=train_util, output_render="not set", split=False, split_output_render="depth")
    model = SimpleNamespace(device=torch.device("cpu"), config=SimpleNamespace(render_normals=True))
    viewer: Any = SimpleNamespace(
        control_panel=panel,
        get_model=lambda: model,
        last_move_time=0.0,
        render_statemachines=dict.fromkeys(range(pages)),
        train_lock=FairLock(),
        trainer=SimpleNamespace(training_state=state),
    )
    client: Any = None
    return Frames(viewer, client)


def frame(frames: Any) -> dict[str, Any]:
    """One frame, and the pause after it."""
    outputs = frames._render_img(CAMERA)
    frames._send_output_to_viewer(outputs, True)
    return outputs


@pytest.mark.parametrize(
    ("train_util", "pages", "expected"), [(0.0, 1, 0.0), (0.5, 1, 2.0), (0.9, 1, 18.0), (0.5, 3, 10.0), (0.0, 2, 2.0)]
)
def test_the_rest_after_a_frame_of_two_seconds(train_util: float, pages: int, expected: float):
    assert pause_length(2.0, train_util, pages) == pytest.approx(expected)


def test_at_full_use_there_is_no_frame_while_training_goes_on():
    assert pause_length(0.001, 1.0, 1) == math.inf


@pytest.mark.parametrize(("train_util", "pages"), [(0.5, 1), (0.85, 1), (0.85, 2)])
def test_frames_take_the_share_that_training_leaves(clock: Clock, train_util: float, pages: int):
    frames, begin = made(train_util=train_util, pages=pages), clock.now
    for _ in range(10):
        frame(frames)
    # A page whose frames take 0.3 s each; it checks every 0.01 s whether its pause is over.
    assert 10 * 0.3 * pages / (clock.now - begin) == pytest.approx(1.0 - train_util, rel=0.02)


@pytest.mark.parametrize("state", ["paused", "completed"])
def test_without_training_frames_follow_each_other(clock: Clock, state: str):
    frames, begin = made(state), clock.now
    for _ in range(10):
        frame(frames)
    assert clock.now - begin == pytest.approx(10 * 0.3)


def test_a_finished_run_has_no_trainer(clock: Clock):
    frames, begin = made(), clock.now
    frames.viewer.trainer = None
    frame(frames)
    assert clock.now - begin == pytest.approx(0.3)


@pytest.mark.parametrize("ends", ["pause", "move", "close"])
def test_a_rest_ends_when_training_needs_none(clock: Clock, monkeypatch: pytest.MonkeyPatch, ends: str):
    """Training is paused, a camera moves, for which Nerfstudio holds training, or the page is closed."""
    frames, begin = made(train_util=1.0), clock.now

    def sleep(seconds: float) -> None:
        clock.now += seconds
        if clock.now - begin > 5.0:
            happen()

    def happen() -> None:
        if ends == "pause":
            frames.viewer.trainer.training_state = "paused"
        elif ends == "move":
            frames.viewer.last_move_time = clock.now
        else:
            frames.running = False

    monkeypatch.setattr(clock, "sleep", sleep)
    frame(frames)
    assert clock.now - begin == pytest.approx(5.0, abs=0.05)


def test_waiting_for_a_step_is_not_the_frame_s_time(clock: Clock, monkeypatch: pytest.MonkeyPatch):
    """Neither for the lock, nor for what a step has left to the device; and Nerfstudio times neither."""
    frames, begin, events = made(train_util=0.5), clock.now, list[str]()

    class Busy(FairLock):
        """A lock that a step holds for 7 s."""

        def __enter__(self) -> FairLock:
            if not self.held:
                events.append("lock")
                clock.sleep(7.0)
            return super().__enter__()

    def finish(_: torch.device) -> None:
        events.append("device")
        clock.sleep(2.0)

    render = RenderStateMachine._render_img

    def timed(self: Any, camera: Any) -> dict[str, Any]:
        events.append("Nerfstudio")
        with self.viewer.train_lock:
            return render(self, camera)

    monkeypatch.setattr(module, "finish_queued_work", finish)
    monkeypatch.setattr(RenderStateMachine, "_render_img", timed)
    lock = Busy()
    frames.viewer.train_lock = lock
    frame(frames)
    assert events == ["lock", "device", "Nerfstudio"]
    assert clock.now - begin == pytest.approx(7.0 + 2.0 + 0.3 + 0.3, abs=0.02)


@pytest.mark.usefixtures("clock")
def test_normals_are_rendered_when_they_are_shown():
    """Whatever is rendered, the names stay, so that the page's list does."""
    frames = made("paused")
    panel, config = frames.viewer.control_panel, frames.viewer.get_model().config
    assert frame(frames)["normals"], "the first frame has everything"
    for output, split, expected in (("rgb", False, False), ("normals", False, True), ("rgb", True, False)):
        panel.output_render, panel.split = output, split
        outputs = frame(frames)
        assert list(outputs) == list(OUTPUTS)
        assert bool(outputs["normals"]) == expected
        assert config.render_normals
    panel.split_output_render = "normals"
    assert frame(frames)["normals"]


@pytest.mark.usefixtures("clock")
def test_normals_that_are_configured_away_are_not_offered():
    frames = made("paused")
    frames.viewer.get_model().config.render_normals = False
    assert list(frame(frames)) == list(frame(frames)) == ["rgb", "depth"]


@pytest.mark.usefixtures("clock")
def test_an_interrupted_frame_leaves_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch):
    frames = made()
    lock = frames.viewer.train_lock

    def interrupted(*_: object) -> None:
        raise InterruptedError

    frames.output_keys = set(OUTPUTS)
    monkeypatch.setattr(RenderStateMachine, "_render_img", interrupted)
    with pytest.raises(InterruptedError):
        frames._render_img(CAMERA)
    assert frames.viewer.get_model().config.render_normals
    assert not lock.held
