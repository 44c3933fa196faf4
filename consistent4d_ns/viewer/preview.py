"""What the prior would see from where the viewer looks, beside what has been learned so far."""

from __future__ import annotations

import base64
import io
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import numpy as np
import torch
import viser
from jaxtyping import Float, UInt8
from torch import Tensor

from consistent4d_ns.data.cameras import OrbitViews, relative_pose
from consistent4d_ns.guidance.base import ViewSampler
from consistent4d_ns.training_state import TrainingState
from consistent4d_ns.viewer.camera import looks_from
from consistent4d_ns.viewer.elements import Button, Note, install

if TYPE_CHECKING:
    from nerfstudio.viewer.control_panel import ControlPanel


def unavailable(pipeline: TrainingState) -> str:
    """Why the prior cannot be asked; empty if it can."""
    if pipeline.guidance is None:
        return "No prior is loaded: train with `--pipeline.guidance.kind zero123`."
    if not (pipeline.guidance_config.previews and isinstance(pipeline.guidance, ViewSampler)):
        return "Needs `--pipeline.guidance.previews True`, which keeps the prior's decoder in memory."
    return ""


class Preview:
    """A button that asks the prior for the current view and moment."""

    def __init__(self, pipeline: TrainingState) -> None:
        self._pipeline = pipeline
        self._asked = 0
        reason = unavailable(pipeline)
        hint = reason or "Sample the current view and moment from the prior; training goes on meanwhile."
        self.button = Button("Ask the prior", self.ask, hint, "sparkles", disabled=bool(reason))
        self.answer = Note(reason or "Samples the current view and moment from the prior.")

    def install(
        self, server: viser.ViserServer, control_panel: ControlPanel, lock: AbstractContextManager[object]
    ) -> None:
        """Add the elements to the open folder; the model is only used while `lock` is held."""
        self._control_panel, self._lock = control_panel, lock
        install([self.button, self.answer], server)

    def ask(self, client: viser.ClientHandle) -> None:
        """Show the rendering and a sample of the prior for this client's camera, side by side."""
        self.button.set_disabled(True)
        self.answer.show("Sampling ...")
        try:
            view = looks_from(client, float(self._pipeline.datamanager.input_view.fovy))
            learned, imagined = self.pictures(view, self._control_panel.time)
            told = f"elevation {round(float(view.elevation))}°, azimuth {round(float(view.azimuth))}°"
            self.answer.show(f"{picture(np.concatenate((learned, imagined), axis=1))}\n\nlearned, imagined: {told}")
        except Exception as error:
            self.answer.show(f"The prior could not be asked: {type(error).__name__}.")
            raise
        finally:
            self.button.set_disabled(False)

    def pictures(
        self, view: OrbitViews, moment: float
    ) -> tuple[UInt8[np.ndarray, "size size 3"], UInt8[np.ndarray, "size size 3"]]:
        """The rendering of a view at a moment in [0, 1], and a fresh sample of the prior for the nearest frame."""
        from consistent4d_ns.media.pictures import render_image, to_bytes

        imagined = self.imagine(view, moment)
        with self._lock:
            learned = render_image(self._pipeline.model, view, moment, imagined.shape[0])["rgb"]
        return to_bytes(learned), to_bytes(imagined)

    def imagine(self, view: OrbitViews, moment: float) -> Float[Tensor, "size size 3"]:
        """A sample of the prior. Takes no lock: the prior is frozen, so training need not wait for it."""
        guidance, data = self._pipeline.guidance, self._pipeline.datamanager
        assert isinstance(guidance, ViewSampler)
        # Its own generator, so that training's draws stay what they were.
        generator = torch.Generator().manual_seed(self._asked)
        self._asked += 1
        frame = torch.tensor([data.frame_times.nearest(moment)])
        scale = self._pipeline.settings.guidance_scale
        pose = relative_pose(view, data.input_view)
        return guidance.sample(pose, frame, scale=scale, generator=generator)[0].movedim(0, -1)


def picture(image: UInt8[np.ndarray, "height width 3"]) -> str:
    """An image as an element of Markdown, as wide as the panel."""
    from PIL import Image

    with io.BytesIO() as file:
        Image.fromarray(image).save(file, "png")
        data = base64.b64encode(file.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" style={{{{width: "100%"}}}} />'
