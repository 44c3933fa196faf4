"""Runs in a Python that has Blender (bpy): imports a GLB or USD file and renders it without changing its colours.

    python blender_render.py JOB.json

The job: `file`, `fps`, `size` in pixels, `fovy` in degrees, `camera` (camera-to-world matrix [3][4] of this package's
world), `seconds` (times) and `out` (folder for 0.png, 1.png, ... with alpha).
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import bpy  # pyright: ignore[reportMissingImports]
from mathutils import Matrix  # pyright: ignore[reportMissingImports]

TO_BLENDER = Matrix(((0, 1, 0, 0), (-1, 0, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)))
"""World here, front towards +x, to Blender's after import of a file with y up, front towards -y."""


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.fps = job["fps"]
    suffix = Path(job["file"]).suffix
    if suffix == ".glb":
        bpy.ops.import_scene.gltf(filepath=job["file"])
    else:
        bpy.ops.wm.usd_import(filepath=job["file"])
    set_up(scene, job["size"])
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.data.sensor_fit, camera.data.angle = "VERTICAL", math.radians(job["fovy"])
    axes = TO_BLENDER if suffix in (".glb", ".usdz") else Matrix.Identity(4)
    camera.matrix_world = axes @ Matrix((*job["camera"], (0, 0, 0, 1)))
    scene.collection.objects.link(camera)
    scene.camera = camera
    for i, seconds in enumerate(job["seconds"]):
        scene.frame_set(round(seconds * job["fps"]))
        scene.render.filepath = str(Path(job["out"]) / f"{i}.png")
        bpy.ops.render.render(write_still=True)


def set_up(scene, size: int) -> None:
    """A small picture with alpha, quickly, without any change of colours."""
    render = scene.render
    render.engine, scene.cycles.device, scene.cycles.samples = "CYCLES", "CPU", 16
    scene.cycles.use_denoising = False
    render.resolution_x = render.resolution_y = size
    render.film_transparent = True
    render.image_settings.file_format, render.image_settings.color_mode = "PNG", "RGBA"
    scene.view_settings.view_transform = "Standard"


main()
