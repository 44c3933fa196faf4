"""The subcommands of `consistent4d`.

Their modules import nothing slow (torch, Nerfstudio) before a command runs, so that help is shown immediately.
"""

from __future__ import annotations

from tyro.extras import SubcommandApp

from consistent4d_ns.cli.camera_path import camera_path_command
from consistent4d_ns.cli.compare import compare
from consistent4d_ns.cli.demo import demo
from consistent4d_ns.cli.doctor import doctor
from consistent4d_ns.cli.enhance import enhance
from consistent4d_ns.cli.eval import evaluate
from consistent4d_ns.cli.export import export
from consistent4d_ns.cli.export_web import web
from consistent4d_ns.cli.finetune import finetune
from consistent4d_ns.cli.prepare import prepare
from consistent4d_ns.cli.render import render
from consistent4d_ns.cli.splats import splats
from consistent4d_ns.cli.sweep import sweep
from consistent4d_ns.cli.toy import toy
from consistent4d_ns.cli.view import view
from consistent4d_ns.cli.weights import weights

export.command(splats)
export.command(web)

app = SubcommandApp()
app.command(name="camera-path")(camera_path_command)
app.command(compare)
app.command(demo)
app.command(doctor)
app.command(enhance)
app.command(name="eval")(evaluate)
app.command(
    export, name="export", help="Write a finished run as meshes, points or Gaussians for other programs, or as a page."
)
app.command(finetune)
app.command(prepare)
app.command(render)
app.command(sweep)
app.command(toy)
app.command(view)
app.command(weights)
