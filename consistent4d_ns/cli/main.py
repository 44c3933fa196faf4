"""The `consistent4d` command: everything beside `ns-train`, `ns-viewer`, `ns-render` and `ns-eval`."""

from __future__ import annotations

import os

# On a shared machine, threads that spin while they wait for each other make every step many times slower. Has to be
# set before torch starts its threads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from tyro.extras import SubcommandApp

from consistent4d_ns.cli.demo import demo
from consistent4d_ns.cli.toy import toy
from consistent4d_ns.cli.view import view
from consistent4d_ns.cli.weights import weights
from consistent4d_ns.errors import show_input_errors_in_one_line

app = SubcommandApp()
app.command(demo)
app.command(toy)
app.command(view)
app.command(weights)


def main() -> None:
    """Entry point of the console script."""
    show_input_errors_in_one_line()
    app.cli(prog="consistent4d", description=__doc__)


if __name__ == "__main__":
    main()
