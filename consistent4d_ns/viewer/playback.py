"""Playback of the sequence: the viewer's time follows the clock, whatever the frame rate of the rendering."""

from __future__ import annotations

import math
import time
from typing import Any

import viser
from nerfstudio.viewer.control_panel import ControlPanel
from nerfstudio.viewer.viewer_elements import ViewerSlider

from consistent4d_ns.data.times import FrameTimes
from consistent4d_ns.nerfstudio_internals import TIME_SLIDER_STEP
from consistent4d_ns.viewer.elements import Button, Checkbox, Readout, Slider, install


def advance(begin: float, seconds: float, frames: int, rate: float, loop: bool) -> tuple[float, bool]:
    """The time in the sequence after some seconds of playback.

    The sequence lasts frames / rate seconds: its last frame is shown for as long as every other.

    Args:
        begin: Time in [0, 1] at which playback began.
        seconds: Seconds since then.
        frames: Frames of the sequence, at least 2.
        rate: Frames per second.
        loop: Whether to continue with the first frame after the last.

    Returns:
        The time in [0, 1], and whether playback is over.
    """
    position = begin * (frames - 1) + seconds * rate
    over = not loop and position >= frames - 1
    position = position % frames if loop else position
    return min(position / (frames - 1), 1.0), over


class Playback:
    """Play, pause, speed and loop, and a slider over the frames, of which there are at least two.

    If rendering is slower than the video, frames are skipped: the time shown always follows the clock.
    """

    def __init__(self, frame_times: FrameTimes) -> None:
        self.frame_times, self.fps = frame_times, frame_times.fps
        self.playing = False
        frames = len(frame_times)
        self.play = Button("Play", lambda _: self.start(), "Play the sequence.", "player-play")
        self.pause = Button("Pause", lambda _: self.stop(), "Stop at the current time.", "player-pause")
        self.pause.visible = False
        hint = "Frame of the input video; the Time slider also reaches times between frames."
        self.frame = Slider("Frame", 0, 0, frames - 1, 1, cb_hook=self._go_to, hint=hint)
        hint = f"1 is the original speed, {self.fps:g} frames per second; slower playback shows times between frames."
        self.speed = Slider("Speed", 1.0, 0.1, 4.0, 0.1, cb_hook=lambda _: self._begin(), hint=hint)
        self.loop = Checkbox("Loop", True, hint="Continue with the first frame after the last.")
        self.elapsed = Readout("Elapsed", "Seconds since the first frame, and length of the video.")

    def install(self, server: viser.ViserServer, control_panel: ControlPanel) -> None:
        """Add the elements to the open folder; `control_panel` holds the time that playback moves."""
        self._control_panel = control_panel
        install([self.play, self.pause, self.frame, self.speed, self.loop, self.elapsed], server)
        self._begin()

    def start(self) -> None:
        """Play, from the beginning if the sequence is at its end."""
        if self._shown_time >= 1.0:
            self._control_panel.time = 0.0
        self._begin()
        self._set_playing(True)

    def stop(self) -> None:
        """Pause."""
        self._set_playing(False)

    def tick(self, now: float) -> float:
        """Unless paused, set the viewer's time to that of the clock `now`, in seconds of `time.monotonic`.

        Returns:
            The time in [0, 1] that is then shown.
        """
        shown = self._shown_time
        if self.playing:
            if abs(shown - self._set) > TIME_SLIDER_STEP:
                # A user has moved the time slider: continue from its new position.
                self._begin(now)
            rate = self.fps * self.speed.value
            due, over = advance(self._from, now - self._since, len(self.frame_times), rate, self.loop.value)
            # Rounded to be readable in the slider's number field; much finer than the frames.
            self._control_panel.time = self._set = shown = round(due, 3)
            if over:
                self.stop()
        self._show(shown)
        return shown

    @property
    def _shown_time(self) -> float:
        """The time that is shown, clamped to [0, 1]; 0 if a page has sent something other than a finite number."""
        time = self._control_panel.time
        return min(max(time, 0.0), 1.0) if isinstance(time, (int, float)) and math.isfinite(time) else 0.0

    def _begin(self, now: float | None = None) -> None:
        """Restart the clock at the time shown."""
        self._since = time.monotonic() if now is None else now
        self._from = self._set = self._shown_time

    def _go_to(self, slider: ViewerSlider[Any]) -> None:
        self._control_panel.time = round(self.frame_times.times[int(slider.value)], 3)
        self._begin()

    def _set_playing(self, playing: bool) -> None:
        self.playing = playing
        self.play.set_visible(not playing)
        self.pause.set_visible(playing)

    def _show(self, time: float) -> None:
        frame: Any = self.frame_times.nearest(time)
        if self.frame.value != frame:
            self.frame.value = frame
        frames = len(self.frame_times)
        self.elapsed.show(f"{time * (frames - 1) / self.fps:.2f} s of {frames / self.fps:.2f} s")
