"""The input view, and overlays on the rendering: the input frame and the occupied cells."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import viser

from consistent4d_ns.nerfstudio_internals import send_depth
from consistent4d_ns.training_state import TrainingState
from consistent4d_ns.viewer.camera import look_from
from consistent4d_ns.viewer.elements import Button, Checkbox, Readout, Slider, install
from consistent4d_ns.viewer.objects import InputFrame, OccupiedCells

if TYPE_CHECKING:
    from nerfstudio.viewer.control_panel import ControlPanel

INTERVAL = 0.5
"""Minimum seconds between updates of the occupied cells."""


class Scene:
    """Input view, input frame and occupied cells."""

    def __init__(self, pipeline: TrainingState) -> None:
        data = pipeline.datamanager
        self._view, self._has_frames = data.input_view, data.has_frames
        self._frame = InputFrame(data.frames, data.input_view)
        no_frames = "" if data.has_frames else "Nothing was filmed: the object is made from a prompt."
        self._cells = OccupiedCells(pipeline.model.occupancy)
        self._updated = 0.0
        name = "Input view" if data.has_frames else "Front view"
        self.go = Button(name, self.go_to_input_view, f"Move the camera to the {name.lower()}.", "video")
        hint = no_frames or "Show the current input frame on the image plane of the input camera."
        self.frame = Checkbox("Input frame", False, bool(no_frames), cb_hook=lambda _: self._composite(), hint=hint)
        self.opacity = Slider("Opacity", 0.5, 0.05, 1.0, 0.05, hint="Opacity of the input frame.")
        hint = "Show the cells of the occupancy grid in which rays are sampled."
        self.cells = Checkbox("Occupied", False, cb_hook=lambda _: self._composite(), hint=hint)
        self.share = Readout("Occupied share", "Fraction of the box in which rays are sampled; smaller is faster.")

    def install(self, server: viser.ViserServer, control_panel: ControlPanel) -> None:
        """Add the elements to the open folder; depth compositing is switched in `control_panel`."""
        self._scene, self._control_panel = server.scene, control_panel
        install([self.go, self.frame, self.opacity, self.cells, self.share], server)
        self._composite()

    def go_to_input_view(self, client: viser.ClientHandle) -> None:
        """Move a client's camera to the input view."""
        look_from(client, self._view)

    def show_frame(self, frame: int) -> None:
        """Show the input frame with this index, if there is one and the overlay is switched on."""
        if self.frame.value and self._has_frames:
            self._frame.show(self._scene, frame, self.opacity.value)
        else:
            self._frame.hide()

    def show_cells(self) -> None:
        """Update the occupied share, and the cells if they are switched on, at most once per `INTERVAL`."""
        now = time.monotonic()
        if now - self._updated < INTERVAL:
            return
        self._updated = now
        self.share.show(f"{100.0 * self._cells.share:.1f} % of the box")
        if self.cells.value:
            self._cells.show(self._scene)
        else:
            self._cells.hide()

    def _composite(self) -> None:
        """Send depth with each frame only while an overlay is shown: encoding it as PNG takes longer than rendering."""
        send_depth(self._control_panel, self.frame.value or self.cells.value)
