"""Rendering for one page: only the outputs that it shows, spaced so that training keeps its share of the time."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
import viser
from nerfstudio.viewer.render_state_machine import RenderStateMachine
from nerfstudio.viewer.utils import CameraState
from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO, Viewer
from nerfstudio.viewer_legacy.server.viewer_utils import IOChangeException

from consistent4d_ns.device.cpu import return_freed_memory_now_and_then
from consistent4d_ns.nerfstudio_internals import MOVE_PAUSE

POLL_INTERVAL = 0.01
"""Seconds between two checks whether to keep waiting."""


def pause_length(seconds: float, train_util: float, pages: int) -> float:
    """Seconds to wait after a frame, so that the frames of all pages together take 1 - `train_util` of the time.

    Args:
        seconds: Time that the frame took.
        train_util: Fraction of the time for training; 1 makes the pause infinite.
        pages: Number of open pages.
    """
    return seconds * (pages / (1.0 - train_util) - 1.0) if train_util < 1.0 else math.inf


class Frames(RenderStateMachine):
    """Nerfstudio's render thread of a page, changed so that training keeps its share of the time.

    While training runs, it pauses after each frame, whether a step, the player or a slider caused it. While a camera is
    moved, Nerfstudio stops training, and there are no pauses, as when training is paused.

    The time of a frame begins when the model and the device are available, and ends when the image is passed to the
    page. Waiting for a training step precedes Nerfstudio's own timing of the frame. Otherwise it would count as
    rendering time, and moving images would be rendered with very few pixels.

    Normals take about as long as everything else, so they are rendered only while they are shown.
    """

    def __init__(self, viewer: Viewer, client: viser.ClientHandle) -> None:
        super().__init__(viewer, VISER_NERFSTUDIO_SCALE_RATIO, client)
        self._begun = 0.0

    def _render_img(self, camera_state: CameraState) -> dict[str, Any]:
        lock: Any = self.viewer.train_lock
        model: Any = self.viewer.get_model()
        with lock:
            if not self.running:  # The page has gone while it waited; hundreds of such frames would hold up training.
                raise IOChangeException
            finish_queued_work(model.device)
            self._begun = time.monotonic()
            offered = model.config.render_normals
            model.config.render_normals = offered and self._shows("normals")
            try:
                outputs = super()._render_img(camera_state)
            finally:
                model.config.render_normals = offered
        if offered:
            # The page lists the outputs that are named here.
            outputs.setdefault("normals", outputs["rgb"])
        return outputs

    def _shows(self, output: str) -> bool:
        """Whether the page shows an output; true for the first frame, from which the page lists the outputs."""
        panel = self.viewer.control_panel
        return (
            not self.output_keys
            or output == panel.output_render
            or (panel.split and output == panel.split_output_render)
        )

    def _send_output_to_viewer(self, outputs: dict[str, Any], static_render: bool = True) -> None:
        super()._send_output_to_viewer(outputs, static_render)
        if self.viewer.get_model().device.type == "cpu":
            return_freed_memory_now_and_then()
        end = time.monotonic()
        pages = len(self.viewer.render_statemachines)
        end += pause_length(end - self._begun, self.viewer.control_panel.train_util, pages)
        while self._delays_training() and time.monotonic() < end:
            time.sleep(POLL_INTERVAL)

    def _delays_training(self) -> bool:
        """Whether rendering now would delay training."""
        trainer, seconds_still = self.viewer.trainer, time.time() - self.viewer.last_move_time
        training = trainer is not None and trainer.training_state == "training"
        return self.running and training and seconds_still >= MOVE_PAUSE


def finish_queued_work(device: torch.device) -> None:
    """Wait until a CUDA device has finished all queued work of the current stream."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
