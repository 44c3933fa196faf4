"""Meshes and points in numbered files: OBJ with material and texture, PLY, GLB."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, UInt8

from consistent4d_ns.export.gltf import glb
from consistent4d_ns.export.moving import MovingMesh
from consistent4d_ns.export.options import Format, Timeline
from consistent4d_ns.export.sequence import Mesh, Points

if TYPE_CHECKING:
    import trimesh
    from trimesh.visual import TextureVisuals

INDEX = "sequence.json"
"""File beside the numbered ones with the time of each."""
SHARED = "object"
"""Name of the material that all files of a moving mesh share."""


def write_meshes(
    folder: Path, meshes: Iterable[Mesh] | MovingMesh, format: Format, timeline: Timeline, lit: bool, compress: bool
) -> None:
    """Write a numbered file for each mesh.

    OBJ comes with .mtl and .png of the same name, or, for a mesh that moves, with one of each for all files.
    """
    moving = isinstance(meshes, MovingMesh)
    for frame, mesh in enumerate(meshes.frames() if moving else meshes):
        number = f"frame_{frame:04d}"
        for name, data in encode(mesh, number, format, lit, compress, SHARED if moving else number).items():
            (folder / name).write_bytes(data)
    write_index(folder, timeline, "y" if format == "glb" else "z")


def write_points(folder: Path, clouds: Iterable[Points], timeline: Timeline) -> None:
    """Write a numbered PLY for each frame."""
    import trimesh

    for frame, cloud in enumerate(clouds):
        points = trimesh.Trimesh(
            cloud.positions,
            np.zeros((0, 3), np.int64),
            vertex_normals=cloud.normals,
            vertex_colors=opaque_bytes(cloud.colours),
            process=False,
        )
        (folder / f"frame_{frame:04d}.ply").write_bytes(ply(points))
    write_index(folder, timeline, "z")


def write_index(folder: Path, timeline: Timeline, up: str, **more: list[int]) -> None:
    """Write the time of each frame, the frame rate, the up axis and the unit of length, and `more` about the frames."""
    index = {"fps": timeline.fps, "times": list(timeline.times), "up": up, "unit": "half the side of the object's box"}
    index |= more
    (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n")


def encode(
    mesh: Mesh, name: str, format: Format, lit: bool = False, compress: bool = True, material: str | None = None
) -> dict[str, bytes]:
    """Names and contents of the files of a mesh; its `material` is called as it is unless told otherwise."""
    material = material or name
    if format == "glb":
        return {f"{name}.glb": glb([mesh], lit=lit, compress=compress)}
    if format == "ply":
        return {f"{name}.ply": ply(as_trimesh(mesh, name))}
    from trimesh.exchange.obj import export_obj

    text, others = export_obj(
        as_trimesh(mesh, material), include_normals=True, return_texture=True, mtl_name=f"{material}.mtl", digits=6
    )
    return {f"{name}.obj": text.encode(), **others}


def ply(mesh: trimesh.Trimesh) -> bytes:
    """Binary PLY with normals."""
    from trimesh.exchange.ply import export_ply

    return export_ply(mesh, vertex_normal=True)


def as_trimesh(mesh: Mesh, material: str) -> trimesh.Trimesh:
    """The same mesh as trimesh's writers take it, with the axes unchanged."""
    import trimesh
    from trimesh.visual import ColorVisuals

    surface = mesh.surface
    converted = trimesh.Trimesh(surface.vertices, surface.faces, vertex_normals=surface.normals, process=False)
    if mesh.texture is not None and mesh.uvs is not None:
        converted.visual = textured(mesh.uvs, mesh.texture, material)
    elif mesh.colours is not None:
        converted.visual = ColorVisuals(converted, vertex_colors=opaque_bytes(mesh.colours))
    return converted


def textured(
    uvs: Float32[np.ndarray, "vertices 2"], texture: UInt8[np.ndarray, "rows columns 3"], name: str
) -> TextureVisuals:
    """A white, matt material of that name with a texture; trimesh puts (0, 0) at the bottom left corner."""
    from PIL import Image
    from trimesh.visual import TextureVisuals
    from trimesh.visual.material import SimpleMaterial

    white, black = [255, 255, 255, 255], [0, 0, 0, 255]
    material = SimpleMaterial(image=Image.fromarray(texture), diffuse=white, ambient=white, specular=black)
    material.name = name
    return TextureVisuals(uv=uvs * (1.0, -1.0) + (0.0, 1.0), material=material)


def opaque_bytes(colours: Float32[np.ndarray, "n 3"]) -> UInt8[np.ndarray, "n 4"]:
    """Colours in [0, 1] as 8-bit RGBA."""
    rgb = np.round(colours * 255.0).astype(np.uint8)
    return np.concatenate((rgb, np.full_like(rgb[:, :1], 255)), axis=1)
