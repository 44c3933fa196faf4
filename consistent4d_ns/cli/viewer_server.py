"""The viewer of a finished run."""

from __future__ import annotations

from pathlib import Path

from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.utils import writer
from nerfstudio.viewer.viewer import Viewer

from consistent4d_ns.runs import Run


def open_viewer(run: Run, folder: Path, host: str, port: int) -> Viewer:
    """Serve a run's viewer from a separate thread.

    Args:
        run: The opened run.
        folder: The run's folder, which holds its config.yml.
        host: Address to listen on.
        port: Port to listen on; it must be free.
    """
    config = run.config
    # Not the run's own settings: they may have opened the viewer to others during training.
    settings = ViewerConfig(websocket_host=host, websocket_port=port, max_num_display_images=0)
    # The viewer obtains its rendering speed from the log writer.
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
