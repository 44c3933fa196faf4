"""The `consistent4d` command: everything beside `ns-train`, `ns-viewer`, `ns-render` and `ns-eval`."""

from __future__ import annotations

import os
import warnings

# On a shared machine, threads that spin while they wait for each other make every step many times slower. Has to be
# set before torch starts its threads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# What Nerfstudio will have to change for later versions of PyTorch is nothing that a user can act on.
warnings.filterwarnings("ignore", module=r"nerfstudio\.")

from tyro.extras import SubcommandApp

from consistent4d_ns.cli.camera_path import camera_path_command
from consistent4d_ns.cli.demo import demo
from consistent4d_ns.cli.export import export
from consistent4d_ns.cli.render import render
from consistent4d_ns.cli.toy import toy
from consistent4d_ns.cli.view import view
from consistent4d_ns.cli.weights import weights
from consistent4d_ns.errors import show_input_errors_in_one_line

app = SubcommandApp()
app.command(name="camera-path")(camera_path_command)
app.command(demo)
app.command(export, name="export", help="Write a finished run as meshes or points for other programs.")
app.command(render)
app.command(toy)
app.command(view)
app.command(weights)


def main() -> None:
    """Entry point of the console script."""
    show_input_errors_in_one_line()
    app.cli(prog="consistent4d", description=__doc__)


if __name__ == "__main__":
    main()
