"""This method's panel in Nerfstudio's viewer, for `ns-train`, `ns-viewer` and `consistent4d view`."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

from nerfstudio.viewer.viewer_elements import ViewerControl

from consistent4d_ns import nerfstudio_internals as internals
from consistent4d_ns.messages import warn
from consistent4d_ns.training_state import TrainingState
from consistent4d_ns.viewer.access import guard
from consistent4d_ns.viewer.fair_lock import FairLock

if TYPE_CHECKING:
    import viser
    from nerfstudio.viewer.viewer import Viewer

    from consistent4d_ns.viewer.frames import Frames

TICK = 1.0 / 30.0
"""Seconds between updates of playback."""
CPU_FRAMES_A_SECOND = 8
"""Target frame rate on a CPU while the image changes; at Nerfstudio's 30, frames would have about 40 x 40 pixels."""


class Panel(ViewerControl):
    """Folders added to the viewer: playback and scene and, during training, steering, progress and the prior.

    There is no playback of a single frame.

    The viewer finds the panel as an attribute of the pipeline and sets it up. Without a viewer, it does nothing.
    """

    def __init__(self, pipeline: TrainingState, training: bool) -> None:
        self._pipeline, self._training = pipeline, training
        self._ready = False

    def after_step(self, step: int) -> None:
        """Update the training progress."""
        if self._ready and self.progress.show(step):
            # Nerfstudio updates its own step number only when it renders.
            self.viewer.update_step(step)

    def _setup(self, viewer: Viewer) -> None:
        """Called by the viewer after it has created its own elements."""
        super()._setup(viewer)
        if viewer.trainer is None:
            internals.share_lock(viewer, FairLock())
        self._build()
        self._install(viewer)
        internals.replace_render_threads(viewer, self._frames_for)
        viewer.viser_server.on_client_connect(self.scene.go_to_input_view)
        if not viewer.config.make_share_url:  # Which asks for an address that everybody can reach.
            guard(viewer.viser_server, viewer.config.websocket_host)
        if viewer.config.websocket_host == "0.0.0.0":
            warn("the whole network can reach the viewer: --viewer.websocket-host 127.0.0.1 limits it to this machine.")
        self._ready = True
        threading.Thread(target=self._run, daemon=True).start()

    def _build(self) -> None:
        # Imported here: training without a viewer needs none of it.
        from consistent4d_ns.viewer.controls import Controls
        from consistent4d_ns.viewer.playback import Playback
        from consistent4d_ns.viewer.preview import Preview
        from consistent4d_ns.viewer.progress import Progress
        from consistent4d_ns.viewer.scene import Scene

        data = self._pipeline.datamanager
        self.scene = Scene(self._pipeline)
        self.playback = Playback(data.frame_times) if len(data.frame_times) > 1 else None
        if self._training:
            self.controls, self.progress = Controls(self._pipeline), Progress(self._pipeline)
            self.preview = Preview(self._pipeline)

    def _install(self, viewer: Viewer) -> None:
        """Add the folders above Nerfstudio's tabs, where they are visible immediately."""
        server = viewer.viser_server
        order = internals.place_above_tabs(viewer)

        def folder(label: str, index: int, opened: bool = True) -> contextlib.AbstractContextManager[object]:
            return server.gui.add_folder(label, order=order + 0.1 * index, expand_by_default=opened)

        if self.playback is not None:
            with folder("Player", 1):
                self.playback.install(server, viewer.control_panel)
        else:
            internals.hide_unused_controls(viewer.control_panel)
        with folder("Scene", 2, opened=False):
            self.scene.install(server, viewer.control_panel)
        if self._training:
            with folder("Steering", 3, opened=False):
                self.controls.install(server)
            with folder("Progress", 4, opened=False):
                self.progress.install(server)
            with folder("Prior", 5, opened=False):
                assert viewer.train_lock is not None
                self.preview.install(server, viewer.control_panel, viewer.train_lock)

    def _frames_for(self, client: viser.ClientHandle) -> Frames:
        """The render thread of a page, not yet started."""
        from consistent4d_ns.viewer.frames import Frames

        frames = Frames(self.viewer, client)
        if self._pipeline.model.device.type == "cpu":
            frames.target_fps = CPU_FRAMES_A_SECOND
        return frames

    def _current_frame(self) -> int:
        """Advance playback, and the index of the frame that is then shown."""
        if self.playback is None:
            return 0
        return self.playback.frame_times.nearest(self.playback.tick(time.monotonic()))

    def _run(self) -> None:
        """The panel's thread: finish the set-up, then advance playback and refresh overlays."""
        internals.wait_until_set_up(self.viewer)
        # All of them would be shown at the same input camera; `Scene` shows the current frame there instead.
        internals.remove_training_cameras(self.viewer)
        if self.viewer.trainer is None:
            internals.remove_training_buttons(self.viewer)
        while True:
            self.scene.show_frame(self._current_frame())
            self.scene.show_cells()
            internals.follow_train_share(self.viewer)
            time.sleep(TICK)
