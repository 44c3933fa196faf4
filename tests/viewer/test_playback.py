"""Playing: arithmetic on the clock, and what becomes of a hand on the slider."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import viser
from nerfstudio.viewer.viewer_elements import ViewerElement

from consistent4d_ns.data.times import FrameTimes
from consistent4d_ns.viewer.playback import Playback, advance


@pytest.mark.parametrize(
    ("begin", "seconds", "loop", "expected"),
    [
        (0.0, 0.0, True, (0.0, False)),
        (0.0, 1.0, True, (0.4, False)),
        (0.4, 1.0, True, (0.8, False)),
        (0.0, 2.75, True, (1.0, False)),  # the last frame stays as long as every other
        (0.0, 3.0, True, (0.0, False)),
        (0.0, 31.0, True, (0.4, False)),
        (0.5, 1.0, False, (0.9, False)),
        (0.0, 2.5, False, (1.0, True)),
        (0.8, 60.0, False, (1.0, True)),
    ],
)
def test_six_frames_at_two_a_second(begin: float, seconds: float, loop: bool, expected: tuple[float, bool]):
    time, over = advance(begin, seconds, 6, 2.0, loop)
    assert (time, over) == (pytest.approx(expected[0], abs=1e-9), expected[1])


@pytest.fixture
def playback(monkeypatch) -> Playback:
    """Six frames at two a second, with elements that no browser shows."""
    monkeypatch.setattr(ViewerElement, "set_visible", lambda *_: None)
    monkeypatch.setattr("consistent4d_ns.viewer.playback.install", lambda *_: None)
    made = Playback(FrameTimes.even(6, 2.0))
    panel: Any = SimpleNamespace(time=0.0)
    server: Any = viser.ViserServer
    made.install(server, panel)
    return made


def start(playback: Playback, now: float) -> None:
    playback.start()
    playback._begin(now)


def test_slow_rendering_skips_times(playback: Playback):
    """However rarely it is asked, the time shown is the one that is due."""
    start(playback, 100.0)
    assert [playback.tick(100.0 + late) for late in (0.1, 0.5, 2.0, 2.1)] == [0.04, 0.2, 0.8, 0.84]


def test_speed_and_loop(playback: Playback):
    playback.speed.value, playback.loop.value = 2.0, False
    start(playback, 0.0)
    assert playback.tick(0.5) == 0.4
    assert playback.tick(5.0) == 1.0
    assert not playback.playing
    assert playback.frame.value == 5
    playback.start()
    assert playback._control_panel.time == 0.0


def test_a_dragged_slider_is_played_from(playback: Playback):
    start(playback, 0.0)
    assert playback.tick(0.5) == 0.2
    playback._control_panel.time = 0.6
    assert playback.tick(0.6) == 0.6
    assert playback.tick(1.1) == 0.8
    playback._control_panel.time = 0.803  # a browser rounds to the slider's step
    assert playback.tick(1.35) == 0.9


def test_paused_it_follows_the_slider(playback: Playback):
    playback._control_panel.time = 0.41
    assert playback.tick(5.0) == playback.tick(9.0) == 0.41
    assert playback.frame.value == 2
    assert playback.elapsed.value == "1.02 s of 3.00 s"


def test_frames_are_shown_at_their_own_times(playback: Playback):
    """Frames at 0, .1, .2 and 1: the third is shown until .6, and the slider goes to each frame's time."""
    playback.frame_times = FrameTimes.at((0.0, 0.3, 0.6, 3.0), 2.0)
    shown = []
    for time in (0.0, 0.12, 0.5, 0.7):
        playback._control_panel.time = time
        playback.tick(0.0)
        shown.append(playback.frame.value)
    assert shown == [0, 1, 2, 3]
    for frame, expected in enumerate((0.0, 0.1, 0.2, 1.0)):
        slider: Any = SimpleNamespace(value=frame)
        playback._go_to(slider)
        assert playback._control_panel.time == expected


@pytest.mark.parametrize("sent", [float("nan"), float("inf"), -7.0, 3.0, "fast", None])
def test_whatever_a_page_sends_playing_goes_on(playback: Playback, sent: Any):
    """Neither the time nor a slider is taken as it comes."""
    start(playback, 0.0)
    for slider in (playback.speed, playback.frame):
        handle: Any = SimpleNamespace(value=sent)
        slider.gui_handle = handle
    playback._control_panel.time = sent
    times = [playback.tick(0.1 * step) for step in range(20)]
    assert all(0.0 <= time <= 1.0 for time in times)
    assert 0.1 <= playback.speed.value <= 4.0
    assert playback.frame.value in range(6)
