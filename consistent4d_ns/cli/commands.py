"""The subcommands of `consistent4d`.

Their modules import nothing slow (torch, Nerfstudio) before a command runs, so that help is shown immediately.
"""

from __future__ import annotations

from typing import Any

from tyro.extras import SubcommandApp

from consistent4d_ns.cli.batch import batch
from consistent4d_ns.cli.camera_path import camera_path_command
from consistent4d_ns.cli.compare import compare
from consistent4d_ns.cli.demo import demo
from consistent4d_ns.cli.doctor import doctor
from consistent4d_ns.cli.enhance import enhance
from consistent4d_ns.cli.eval import evaluate
from consistent4d_ns.cli.export import export
from consistent4d_ns.cli.export_web import web
from consistent4d_ns.cli.finetune import finetune
from consistent4d_ns.cli.help_rules import summary
from consistent4d_ns.cli.prepare import prepare
from consistent4d_ns.cli.render import render
from consistent4d_ns.cli.splats import splats
from consistent4d_ns.cli.sweep import sweep
from consistent4d_ns.cli.toy import toy
from consistent4d_ns.cli.view import view
from consistent4d_ns.cli.weights import weights

export.command(splats)
export.command(web)

COMMANDS: dict[str, Any] = {
    "batch": batch,
    "camera-path": camera_path_command,
    "compare": compare,
    "demo": demo,
    "doctor": doctor,
    "enhance": enhance,
    "eval": evaluate,
    "export": export,
    "finetune": finetune,
    "prepare": prepare,
    "render": render,
    "sweep": sweep,
    "toy": toy,
    "view": view,
    "weights": weights,
}
"""All commands by name."""
GROUPS = {"export": "Write a finished run as meshes, points or Gaussians for other programs, or as a page."}
"""Help of those that have commands of their own and no docstring."""

app = SubcommandApp()
for name, command in COMMANDS.items():
    app.command(command, name=name, help=GROUPS.get(name) or summary(command))
