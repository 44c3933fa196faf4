"""Opening the viewer on a finished run."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.utils import writer
from nerfstudio.viewer.viewer import Viewer

from consistent4d_ns.errors import InputError
from consistent4d_ns.runs import Run


def open_viewer(run: Run, folder: Path, host: str, port: int | None) -> Viewer:
    """Serve a run's viewer from a thread of its own.

    Args:
        run: What to look at.
        folder: The run's folder, which holds its config.yml.
        host: Address to listen on.
        port: Port to listen on; None: 7007, or any free one.

    Raises:
        InputError: this machine cannot listen there.
    """
    config = run.config
    # Not the run's own: what it was trained with may have shared it with others.
    settings = ViewerConfig(websocket_host=host, websocket_port=free_port(host, port), max_num_display_images=0)
    # The viewer reads how fast it renders from the log.
    config.logging.local_writer.enable = False
    writer.setup_local_writer(config.logging, max_iter=config.max_num_iterations)
    viewer = Viewer(
        settings,
        log_filename=folder / settings.relative_log_filename,
        datapath=run.pipeline.datamanager.get_datapath(),
        pipeline=run.pipeline,
    )
    data = run.pipeline.datamanager
    viewer.init_scene(train_dataset=data.train_dataset, train_state="completed", eval_dataset=data.eval_dataset)
    viewer.update_step(run.step)
    return viewer


def free_port(host: str, port: int | None) -> int:
    """`port`, if it can be listened on; without one 7007 or any that can.

    Raises:
        InputError: it cannot.
    """
    for candidate in (7007, 0) if port is None else (port,):
        with contextlib.suppress(OSError), socket.create_server((host, candidate)) as server:
            return server.getsockname()[1]
    raise InputError(f"cannot listen on {host}, port {port or 'any'}: give another --host or --port.")
