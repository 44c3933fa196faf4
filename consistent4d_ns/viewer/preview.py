"""A sample of the prior for the viewer's current view, next to its rendering."""

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
from consistent4d_ns.viewer.camera import view_of
from consistent4d_ns.viewer.elements import Button, Note, install

if TYPE_CHECKING:
    from nerfstudio.viewer.control_panel import ControlPanel


def unavailable(pipeline: TrainingState) -> str:
    """The reason why the prior cannot be sampled, or an empty string if it can."""
    if pipeline.guidance is None:
        return "No prior is loaded: train with `--pipeline.guidance.kind zero123`."
    if not (pipeline.guidance_config.previews and isinstance(pipeline.guidance, ViewSampler)):
        return "Needs `--pipeline.guidance.previews True`, which keeps the prior's decoder in memory."
    return ""


class Preview:
    """A button that samples the prior for the current view and time."""

    def __init__(self, pipeline: TrainingState) -> None:
        self._pipeline = pipeline
        self._samples = 0
        reason = unavailable(pipeline)
        hint = reason or "Sample the current view and time from the prior; training continues meanwhile."
        self.button = Button("Sample the prior", self.show_sample, hint, "sparkles", disabled=bool(reason))
        self.result = Note(reason or "Samples the current view and time from the prior.")

    def install(
        self, server: viser.ViserServer, control_panel: ControlPanel, lock: AbstractContextManager[object]
    ) -> None:
        """Add the elements to the open folder; the model is only used while `lock` is held."""
        self._control_panel, self._lock = control_panel, lock
        install([self.button, self.result], server)

    def show_sample(self, client: viser.ClientHandle) -> None:
        """Show the rendering and a sample of the prior side by side, for this client's camera."""
        self.button.set_disabled(True)
        self.result.show("Sampling ...")
        try:
            view = view_of(client, float(self._pipeline.datamanager.input_view.fovy))
            rendered, sampled = self.images(view, self._control_panel.time)
            angles = f"elevation {round(float(view.elevation))}°, azimuth {round(float(view.azimuth))}°"
            image = markdown_image(np.concatenate((rendered, sampled), axis=1))
            self.result.show(f"{image}\n\nrendered, sampled: {angles}")
        except Exception as error:
            self.result.show(f"Sampling failed: {type(error).__name__}.")
            raise
        finally:
            self.button.set_disabled(False)

    def images(
        self, view: OrbitViews, time: float
    ) -> tuple[UInt8[np.ndarray, "size size 3"], UInt8[np.ndarray, "size size 3"]]:
        """The rendering of a view at a time in [0, 1], and a new sample of the prior for the nearest frame."""
        from consistent4d_ns.media.pictures import render_colour, to_bytes

        sampled = self.sample(view, time)
        with self._lock:
            rendered = render_colour(self._pipeline.model, view, time, sampled.shape[0])
        return to_bytes(rendered), to_bytes(sampled)

    def sample(self, view: OrbitViews, time: float) -> Float[Tensor, "size size 3"]:
        """A sample of the prior. This takes no lock: the prior is frozen, so training continues meanwhile."""
        guidance, data = self._pipeline.guidance, self._pipeline.datamanager
        assert isinstance(guidance, ViewSampler)
        # A separate generator, so that sampling does not change the random numbers of training.
        generator = torch.Generator().manual_seed(self._samples)
        self._samples += 1
        frame = torch.tensor([data.frame_times.nearest(time)])
        scale = self._pipeline.settings.guidance_scale
        pose = relative_pose(view, data.input_view)
        return guidance.sample(pose, frame, scale=scale, generator=generator)[0].movedim(0, -1)


def markdown_image(image: UInt8[np.ndarray, "height width 3"]) -> str:
    """An image for a Markdown element, as wide as the panel."""
    from PIL import Image

    with io.BytesIO() as file:
        Image.fromarray(image).save(file, "png")
        data = base64.b64encode(file.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" style={{{{width: "100%"}}}} />'
