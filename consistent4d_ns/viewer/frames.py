"""Frames for one page: nothing that it does not show, and spaced so that training keeps its share of the time."""

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
"""Seconds between two looks at whether to go on resting."""


def rest(seconds: float, train_util: float, pages: int) -> float:
    """Seconds without a frame after one that took `seconds`.

    With it, the frames of all pages together take a share 1 - `train_util` of the time: without end if that is 0.
    """
    return seconds * (pages / (1.0 - train_util) - 1.0) if train_util < 1.0 else math.inf


class Frames(RenderStateMachine):
    """Nerfstudio's thread that renders for a page, which also takes care of training.

    While training goes on, it rests after each frame, whatever asked for it: a step, the player, a slider. While a
    camera is moved by hand Nerfstudio holds training, and frames follow each other as they do when it is paused.

    A frame's time is what it takes from the moment at which the model and the device are free for it until the picture
    is handed to the page. Waiting for a training step belongs to that step, so it is over before Nerfstudio begins to
    time the frame; otherwise it would render moving pictures with next to no pixels while training goes on.

    Normals, which take about as long as everything else, are rendered when they are shown.
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
            # The list of outputs on the page is made from the names here.
            outputs.setdefault("normals", outputs["rgb"])
        return outputs

    def _shows(self, output: str) -> bool:
        """Whether the page shows an output; the first frame, from which it learns their names, has all of them."""
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
        while self._in_the_way() and time.monotonic() < end:
            time.sleep(REST_POLL)

    def _in_the_way(self) -> bool:
        """Whether a frame would keep training waiting."""
        trainer, still = self.viewer.trainer, time.time() - self.viewer.last_move_time
        return self.running and trainer is not None and trainer.training_state == "training" and still >= MOVE_PAUSE


def finish_queued_work(device: torch.device) -> None:
    """Wait until a CUDA device has done what it was told so far."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
