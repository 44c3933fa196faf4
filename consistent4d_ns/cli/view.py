"""`consistent4d view`: a finished run in the viewer."""

from __future__ import annotations

import threading
from pathlib import Path

from consistent4d_ns.cli.help_texts import RunArgument
from consistent4d_ns.cli.ports import free_port
from consistent4d_ns.cli.progress import announce


def view(
    config: RunArgument,
    /,
    step: int | None = None,
    data: Path | None = None,
    port: int | None = None,
    host: str = "127.0.0.1",
) -> None:
    """View a finished run in the browser: scrub, play, choose outputs. Loads no prior; Ctrl-C ends it.

    Args:
        config: The run's config.yml, or its folder.
        step: Training step of the checkpoint; default: the latest.
        data: Where the run's frames are now, if they were moved.
        port: Port to listen on; default: 7007, or any free port if that is taken.
        host: Address to listen on; 0.0.0.0 accepts connections from the whole network.
    """
    port = free_port(host, port)
    announce(f"Loading {config}")
    from consistent4d_ns.nerfstudio_internals import import_trainer_lightly

    import_trainer_lightly()  # First: otherwise the viewer imports unused modules, which takes seconds.
    from consistent4d_ns.cli.viewer_server import open_viewer
    from consistent4d_ns.runs import load_run

    run = load_run(config, step, data)
    viewer = open_viewer(run, config if config.is_dir() else config.parent, host, port)
    print(f"step {run.step}: http://{host}:{viewer.viser_server.get_port()} (Ctrl-C ends)", flush=True)
    try:
        threading.Event().wait()
    finally:
        viewer.viser_server.stop()
