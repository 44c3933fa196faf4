"""This method's part of Nerfstudio's viewer, in ns-train and in ns-viewer."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

from nerfstudio.utils.rich_utils import CONSOLE
from nerfstudio.viewer.viewer_elements import ViewerControl

from consistent4d_ns.viewer.fair_lock import FairLock

if TYPE_CHECKING:
    import viser
    from nerfstudio.viewer.viewer import Viewer

    from consistent4d_ns.pipeline import Consistent4DPipeline

TICK = 1.0 / 30.0
"""Seconds between two looks at the clock."""
CPU_FRAMES_A_SECOND = 8
"""Frame rate that moving pictures aim at on a CPU. At Nerfstudio's 30 it has time for about 40 x 40 pixels."""


class Panel(ViewerControl):
    """Adds folders to the viewer: playback and scene, and, in training, steering, progress and the prior.

    The viewer finds it as an attribute of the pipeline and sets it up; without a viewer it does nothing.
    """

    def __init__(self, pipeline: Consistent4DPipeline, training: bool) -> None:
        self._pipeline, self._training = pipeline, training
        self._ready = False

    def after_step(self, step: int) -> None:
        """Show how training is doing."""
        if self._ready and self.progress.show(step):
            # Nerfstudio's own number changes with the picture only.
            self.viewer.update_step(step)

    def _setup(self, viewer: Viewer) -> None:
        """Called by the viewer once its own elements are in place."""
        super()._setup(viewer)
        if viewer.trainer is None:
            lock: Any = FairLock()
            viewer.train_lock = lock
        self._build()
        self._install(viewer)
        viewer.viser_server.on_client_connect(self._welcome)
        if viewer.config.websocket_host == "0.0.0.0":
            CONSOLE.print("The viewer listens to the whole network: --viewer.websocket-host 127.0.0.1 keeps it here.")
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
        self.playback, self.scene = Playback(data.frame_times), Scene(self._pipeline)
        if self._training:
            self.controls, self.progress = Controls(self._pipeline), Progress(self._pipeline)
            self.preview = Preview(self._pipeline)

    def _install(self, viewer: Viewer) -> None:
        """Put the folders above Nerfstudio's tabs, where they are seen at once."""
        server = viewer.viser_server
        place = viewer.stats_markdown.order

        def folder(label: str, index: int, opened: bool = True) -> contextlib.AbstractContextManager[object]:
            return server.gui.add_folder(label, order=place + 0.1 * index, expand_by_default=opened)

        with folder("Player", 1):
            self.playback.install(server, viewer.control_panel)
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

    def _welcome(self, client: viser.ClientHandle) -> None:
        """Render for a new page, and show it the input view."""
        self._render_for(client)
        self.scene.go_to_input_view(client)

    def _render_for(self, client: viser.ClientHandle) -> None:
        """Put `Frames` in the place of the thread that Nerfstudio has just started."""
        from consistent4d_ns.viewer.frames import Frames

        threads: dict[int, Any] = self.viewer.render_statemachines
        theirs = threads[client.client_id]
        theirs.running = False
        theirs.action = lambda _: None  # it would render once more before it looks at `running`
        threads[client.client_id] = frames = Frames(self.viewer, client)
        if self._pipeline.model.device.type == "cpu":
            frames.target_fps = CPU_FRAMES_A_SECOND
        frames.start()

    def _run(self) -> None:
        """Keep time."""
        self._remove_what_is_of_no_use()
        while True:
            moment = self.playback.tick(time.monotonic())
            self.scene.show_frame(self.playback.frame_times.nearest(moment))
            self.scene.show_cells()
            # Nerfstudio asks for frames by a value that its own slider does not reach.
            self.viewer.train_util = self.viewer.control_panel.train_util
            time.sleep(TICK)

    def _remove_what_is_of_no_use(self) -> None:
        """A picture per frame, all at the one input camera (see `Scene`); training's buttons where there is none."""
        viewer = self.viewer
        while not hasattr(viewer, "train_util"):  # the last thing that the viewer sets up
            time.sleep(TICK)
        for camera in viewer.camera_handles.values():
            camera.remove()
        viewer.camera_handles.clear()
        viewer.hide_images.visible = viewer.show_images.visible = False
        if viewer.trainer is None:
            viewer.pause_train.visible = viewer.resume_train.visible = False
