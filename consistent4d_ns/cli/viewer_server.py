"""Opening the viewer on a finished run."""

from __future__ import annotations

from pathlib import Path

from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.utils import writer
from nerfstudio.viewer.viewer import Viewer

from consistent4d_ns.runs import Run


def open_viewer(run: Run, folder: Path, host: str, port: int) -> Viewer:
    """Serve a run's viewer from a thread of its own.

    Args:
        run: The opened run.
        folder: The run's folder, which holds its config.yml.
        host: Address to listen on.
        port: Port to listen on, a free one.
    """
    config = run.config
    # Not the run's own settings: training may have shared its viewer with others.
    settings = ViewerConfig(websocket_host=host, websocket_port=port, max_num_display_images=0)
    # The viewer reads the frame rate of its rendering from the log.
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
