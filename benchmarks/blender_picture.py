"""Renders docs/images/blender.png: an animated, lit GLB at several times, in a Python that has Blender (bpy 4.5).

python -m benchmarks.known_object toy --out runs
consistent4d export mesh runs/runs/toy/consistent4d-mini/TIME toy.glb --lit
python -m benchmarks.blender_picture toy.glb FOLDER        # 0.png, 1.png, ... to be placed side by side
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

bpy: Any
Vector: Any
try:
    import bpy  # pyright: ignore[reportMissingImports]
    from mathutils import Vector  # pyright: ignore[reportMissingImports]
except ImportError:  # help is shown without Blender
    bpy = Vector = None

FRAMES = (0, 6, 12, 18)
FPS = 16


def main(file: str, out: Path) -> None:
    """Import the file, light the scene and render it."""
    if bpy is None:
        sys.exit("This Python has no bpy: pip install bpy==4.5.0, in an environment of its own.")
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.fps = FPS
    bpy.ops.import_scene.gltf(filepath=file)
    set_up(scene)
    add_floor()
    add(scene, "sun", sun(), (1.5, -2.0, 2.5))
    scene.camera = add(scene, "camera", camera(), (0.75, -1.85, 0.95))
    for i, frame in enumerate(FRAMES):
        scene.frame_set(frame)
        scene.render.filepath = str(out / f"{i}.png")
        bpy.ops.render.render(write_still=True)


def set_up(scene: Any) -> None:
    """Configure a small, fast render under a bright sky."""
    scene.render.engine, scene.cycles.device, scene.cycles.samples = "CYCLES", "CPU", 48
    scene.render.resolution_x, scene.render.resolution_y = 300, 340
    scene.view_settings.view_transform = "Standard"
    scene.world = bpy.data.worlds.new("sky")
    scene.world.use_nodes = True
    colour, strength = list(scene.world.node_tree.nodes["Background"].inputs)[:2]
    colour.default_value, strength.default_value = (1.0, 1.0, 1.0, 1.0), 0.75


def sun() -> Any:
    light = bpy.data.lights.new("sun", "SUN")
    light.energy, light.angle = 1.6, math.radians(12.0)
    return light


def camera() -> Any:
    lens = bpy.data.cameras.new("camera")
    lens.lens = 55.0
    return lens


def add(scene: Any, name: str, data: Any, place: tuple[float, float, float]) -> Any:
    """Add an object that faces the origin."""
    added = bpy.data.objects.new(name, data)
    added.location = place
    added.rotation_euler = (-Vector(place)).to_track_quat("-Z", "Y").to_euler()
    scene.collection.objects.link(added)
    return added


def add_floor() -> None:
    """Add a white floor below the mesh of the first frame."""
    shown = [thing for thing in bpy.data.objects if thing.type == "MESH" and thing.scale.x > 0]
    lowest = min((thing.matrix_world @ Vector(corner)).z for thing in shown for corner in thing.bound_box)
    bpy.ops.mesh.primitive_plane_add(size=40.0, location=(0.0, 0.0, lowest))
    material = bpy.data.materials.new("floor")
    material.use_nodes = True
    material.node_tree.nodes["Principled BSDF"].inputs["Roughness"].default_value = 0.9
    bpy.context.object.data.materials.append(material)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="GLB file")
    parser.add_argument("out", type=Path, help="folder for the pictures")
    options = parser.parse_args()
    main(options.file, options.out)
