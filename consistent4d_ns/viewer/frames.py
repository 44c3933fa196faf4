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

from consistent4d_ns.nerfstudio_internals import MOVE_PAUSE

REST_POLL = 0.01
"""Seconds between two checks whether to keep waiting."""


def rest(seconds: float, train_util: float, pages: int) -> float:
    """Seconds to wait after a frame that took `seconds`; infinite if training is to have all of the time.

    The frames of all pages together then take a share 1 - `train_util` of the time.
    """
    return seconds * (pages / (1.0 - train_util) - 1.0) if train_util < 1.0 else math.inf


class Frames(RenderStateMachine):
    """Nerfstudio's render thread of a page, changed so that training keeps its share of the time.

    While training runs, it rests after each frame, whatever caused the frame: a step, the player, a slider. While a
    camera is moved Nerfstudio stops training, and frames follow each other as they do when training is paused.

    A frame's time begins when the model and the device are free for it and ends when the image is handed to the page.
    Waiting for a training step is over before Nerfstudio starts to time the frame: its time would otherwise count as
    rendering, and moving images would be rendered with very few pixels.

    Normals take about as long as everything else, so they are rendered only while they are shown.
    """

    def __init__(self, viewer: Viewer, client: viser.ClientHandle) -> None:
        super().__init__(viewer, VISER_NERFSTUDIO_SCALE_RATIO, client)
        self._begun = 0.0

    def _render_img(self, camera_state: CameraState) -> dict[str, Any]:
        lock: Any = self.viewer.train_lock
        model: Any = self.viewer.get_model()
        with lock:
            finish_queued_work(model.device)
            self._begun = time.monotonic()
            offered = model.config.render_normals
            model.config.render_normals = offered and self._shows("normals")
            try:
                outputs = super()._render_img(camera_state)
            finally:
                model.config.render_normals = offered
        if offered:
            # The page offers the outputs that are named here.
            outputs.setdefault("normals", outputs["rgb"])
        return outputs

    def _shows(self, output: str) -> bool:
        """Whether the page shows an output; the first frame, which tells the page their names, has all of them."""
        panel = self.viewer.control_panel
        return (
            not self.output_keys
            or output == panel.output_render
            or (panel.split and output == panel.split_output_render)
        )

    def _send_output_to_viewer(self, outputs: dict[str, Any], static_render: bool = True) -> None:
        super()._send_output_to_viewer(outputs, static_render)
        end = time.monotonic()
        pages = len(self.viewer.render_statemachines)
        end += rest(end - self._begun, self.viewer.control_panel.train_util, pages)
        while self._delays_training() and time.monotonic() < end:
            time.sleep(REST_POLL)

    def _delays_training(self) -> bool:
        """Whether a frame now would delay training."""
        trainer, still = self.viewer.trainer, time.time() - self.viewer.last_move_time
        return self.running and trainer is not None and trainer.training_state == "training" and still >= MOVE_PAUSE


def finish_queued_work(device: torch.device) -> None:
    """Wait until a CUDA device has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
