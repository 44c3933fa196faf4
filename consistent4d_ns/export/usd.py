"""USD: one mesh that changes over time (.usd, .usda, .usdc), or a mesh per frame in a package for phones (.usdz).

The first is what Houdini, Omniverse, Blender and usdview read: points and normals are time samples, and where the
topology changes, faces and vertex colours too; else a texture lies beside the file. Viewers on phones play neither
changing topology nor vertex colours, but they do play transforms: there every frame is a textured mesh of its own,
scaled to zero while it is not shown.
"""

# pyright: reportAttributeAccessIssue=false
# (USD's modules are populated at import.)

from __future__ import annotations

import re
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float, UInt8

from consistent4d_ns.export.gltf import to_linear, y_up
from consistent4d_ns.export.moving import MovingMesh
from consistent4d_ns.export.sequence import Mesh

if TYPE_CHECKING:
    from pxr import Usd, UsdGeom, UsdShade

ROOT = "/consistent4d"
STEP = 1e-3
"""Frames within which one mesh replaces another: USD interpolates transforms linearly, and steps are wanted."""
JPEG_QUALITY = 92
"""Quality of the textures in packages; USD allows PNG and JPEG there."""


def write_usd(path: Path, meshes: Iterable[Mesh], fps: float, lit: bool = False) -> None:
    """Write meshes with vertex colours as one mesh that changes over time; z is up, as in the world.

    Args:
        path: File that ends in .usd, .usda or .usdc.
        meshes: One for each frame.
        fps: Frames per second.
        lit: Whether the mesh is shaded; otherwise it emits its colours, which contain the video's lighting.

    Raises:
        OSError: the file cannot be written.
    """
    from pxr import Sdf, UsdGeom, Vt

    with _system_errors():
        stage = _new_stage(path, fps, "Z")
        prim = UsdGeom.Mesh.Define(stage, f"{ROOT}/mesh")
        colour = UsdGeom.PrimvarsAPI(prim).CreatePrimvar(
            "displayColor", Sdf.ValueTypeNames.Color3fArray, UsdGeom.Tokens.vertex
        )
        _bind(prim, _material(stage, f"{ROOT}/material", _vertex_colours, lit))
        frame = -1
        for frame, mesh in enumerate(meshes):
            assert mesh.colours is not None
            _set_shape(prim, mesh, mesh.surface.vertices, mesh.surface.normals, frame)
            colour.Set(Vt.Vec3fArray.FromNumpy(to_linear(mesh.colours).astype(np.float32)), frame)
        stage.SetStartTimeCode(0)
        stage.SetEndTimeCode(frame)
        stage.Save()


def write_moving_usd(path: Path, picture: Path, mesh: MovingMesh, fps: float, lit: bool = False) -> None:
    """Write a textured mesh whose points alone change over time; z is up, as in the world.

    Args:
        path: File that ends in .usd, .usda or .usdc.
        picture: PNG file for the texture; readers look for its name beside `path`.
        mesh: With a texture.
        fps: Frames per second.
        lit: As for `write_usd`.

    Raises:
        OSError: a file cannot be written.
    """
    from PIL import Image
    from pxr import UsdGeom

    assert mesh.texture is not None
    Image.fromarray(mesh.texture).save(picture, "PNG")
    with _system_errors():
        stage = _new_stage(path, fps, "Z")
        prim = UsdGeom.Mesh.Define(stage, f"{ROOT}/mesh")
        _bind(prim, _textured_material(stage, f"{ROOT}/material", picture.name, lit))
        for frame, shape in enumerate(mesh.frames()):
            if frame == 0:
                _set_faces(prim, shape)
                _set_uvs(prim, shape)
            _set_points(prim, shape.surface.vertices, shape.surface.normals, frame)
        stage.SetStartTimeCode(0)
        stage.SetEndTimeCode(len(mesh) - 1)
        stage.Save()


def write_usdz(path: Path, meshes: Iterable[Mesh] | MovingMesh, fps: float, lit: bool = False) -> None:
    """Write textured meshes as a package of one mesh per frame; y is up, as phones require.

    Args:
        path: File that ends in .usdz.
        meshes: One for each frame, or one that moves, whose texture the frames share.
        fps: Frames per second.
        lit: As for `write_usd`.

    Raises:
        OSError: the file cannot be written.
    """
    from pxr import Sdf, UsdUtils

    with _system_errors(), tempfile.TemporaryDirectory(dir=path.parent) as folder:
        layer = Path(folder) / f"{path.stem}.usdc"
        stage = _new_stage(layer, fps, "Y")
        moving = isinstance(meshes, MovingMesh)
        shared = _add_texture(stage, Path(folder), "object", meshes.texture, lit) if moving else None
        frames = enumerate(meshes.frames() if moving else meshes)
        nodes = [_add_frame(stage, Path(folder), frame, mesh, lit, shared) for frame, mesh in frames]
        for frame, node in enumerate(nodes):
            scale = node.AddScaleOp()
            for time, value in scale_samples(frame, len(nodes)):
                scale.Set((value, value, value), time)
        stage.SetStartTimeCode(0)
        stage.SetEndTimeCode(len(nodes))
        stage.Save()
        packed = UsdUtils.CreateNewUsdzPackage(Sdf.AssetPath(str(layer)), str(path))
        # USD does not notice when the disk is full; without its last bytes a package has no directory.
        if not (packed and zipfile.is_zipfile(path)):
            raise OSError("the package is incomplete")


def scale_samples(frame: int, count: int) -> list[tuple[float, float]]:
    """Time codes and scales of one of `count` frames: 1 while it is shown, else 0; the last one is held."""
    samples = [] if frame == 0 else [(frame - STEP, 0.0)]
    samples.append((float(frame), 1.0))
    return samples if frame == count - 1 else [*samples, (frame + 1 - STEP, 1.0), (frame + 1.0, 0.0)]


@contextmanager
def _system_errors() -> Iterator[None]:
    """Turn USD's errors, which concern the file here, into OSError with the reason that the system gave."""
    from pxr import Tf

    try:
        yield
    except Tf.ErrorException as error:
        reason = re.search(r": '(.*?)'", str(error))
        raise OSError(reason[1] if reason else " ".join(str(error).split())) from error


def _new_stage(path: Path, fps: float, up: Literal["Y", "Z"]) -> Usd.Stage:
    """An empty stage in metres; one time code per frame."""
    from pxr import Usd, UsdGeom

    stage = Usd.Stage.CreateNew(str(path))
    UsdGeom.SetStageUpAxis(stage, up)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    stage.SetTimeCodesPerSecond(fps)
    stage.SetFramesPerSecond(fps)
    stage.SetDefaultPrim(UsdGeom.Xform.Define(stage, ROOT).GetPrim())
    return stage


def _set_shape(
    prim: UsdGeom.Mesh,
    mesh: Mesh,
    vertices: Float[np.ndarray, "vertices 3"],
    normals: Float[np.ndarray, "vertices 3"],
    *time: float,
) -> None:
    """Points, faces, normals and bounds of a mesh, at a time code, or static."""
    _set_faces(prim, mesh, *time)
    _set_points(prim, vertices, normals, *time)


def _set_faces(prim: UsdGeom.Mesh, mesh: Mesh, *time: float) -> None:
    """Faces of a mesh, at a time code, or static."""
    from pxr import UsdGeom, Vt

    prim.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    prim.SetNormalsInterpolation(UsdGeom.Tokens.vertex)
    faces = mesh.surface.faces
    prim.CreateFaceVertexIndicesAttr().Set(Vt.IntArray.FromNumpy(faces.ravel()), *time)
    prim.CreateFaceVertexCountsAttr().Set(Vt.IntArray.FromNumpy(np.full(len(faces), 3, np.int32)), *time)


def _set_points(
    prim: UsdGeom.Mesh,
    vertices: Float[np.ndarray, "vertices 3"],
    normals: Float[np.ndarray, "vertices 3"],
    *time: float,
) -> None:
    """Points, normals and bounds of a mesh, at a time code, or static."""
    from pxr import Vt

    prim.CreatePointsAttr().Set(Vt.Vec3fArray.FromNumpy(vertices), *time)
    prim.CreateNormalsAttr().Set(Vt.Vec3fArray.FromNumpy(normals), *time)
    extent = np.stack((vertices.min(axis=0), vertices.max(axis=0)))
    prim.CreateExtentAttr().Set(Vt.Vec3fArray.FromNumpy(extent), *time)


def _add_frame(
    stage: Usd.Stage, folder: Path, frame: int, mesh: Mesh, lit: bool, shared: UsdShade.Material | None
) -> UsdGeom.Xform:
    """A node with a textured mesh, whose texture is a file in `folder` unless it has the `shared` material."""
    from pxr import UsdGeom

    name = f"frame_{frame:04d}"
    node = UsdGeom.Xform.Define(stage, f"{ROOT}/{name}")
    prim = UsdGeom.Mesh.Define(stage, f"{ROOT}/{name}/mesh")
    _set_shape(prim, mesh, y_up(mesh.surface.vertices), y_up(mesh.surface.normals))
    _set_uvs(prim, mesh)
    _bind(prim, shared or _add_texture(stage, folder, name, mesh.texture, lit))
    return node


def _set_uvs(prim: UsdGeom.Mesh, mesh: Mesh) -> None:
    """Where the vertices of a mesh lie in its texture."""
    from pxr import Sdf, UsdGeom, Vt

    assert mesh.uvs is not None
    primvars = UsdGeom.PrimvarsAPI(prim)
    uvs = primvars.CreatePrimvar("st", Sdf.ValueTypeNames.TexCoord2fArray, UsdGeom.Tokens.vertex)
    # (0, 0) is the bottom left corner here.
    uvs.Set(Vt.Vec2fArray.FromNumpy((mesh.uvs * (1.0, -1.0) + (0.0, 1.0)).astype(np.float32)))


def _add_texture(
    stage: Usd.Stage, folder: Path, name: str, texture: UInt8[np.ndarray, "rows columns 3"] | None, lit: bool
) -> UsdShade.Material:
    """The material of the frame of that name, or of all (`object`), with a texture in `folder`."""
    assert texture is not None
    _write_jpeg(folder / f"{name}.jpg", texture)
    place = f"{ROOT}/material" if name == "object" else f"{ROOT}/{name}/material"
    return _textured_material(stage, place, f"{name}.jpg", lit)


def _textured_material(stage: Usd.Stage, path: str, file: str, lit: bool) -> UsdShade.Material:
    """A material that shows a picture."""

    def texture(stage: Usd.Stage, path: str) -> UsdShade.Output:
        return _texture(stage, path, file)

    return _material(stage, path, texture, lit)


def _material(stage: Usd.Stage, path: str, colours: Any, lit: bool) -> UsdShade.Material:
    """A matt UsdPreviewSurface whose diffuse or, where it is not lit, emitted colour is what `colours` defines."""
    from pxr import Sdf, UsdShade

    material = UsdShade.Material.Define(stage, path)
    surface = _shader(stage, f"{path}/surface", "UsdPreviewSurface")
    # No reflection at all: an index of refraction of 1.
    values = {"roughness": 1.0, "metallic": 0.0, "ior": 1.0}
    for name, value in values.items():
        surface.CreateInput(name, Sdf.ValueTypeNames.Float).Set(value)
    kind = Sdf.ValueTypeNames.Color3f
    surface.CreateInput("diffuseColor", kind).Set((0.0, 0.0, 0.0))
    shown = surface.CreateInput("diffuseColor" if lit else "emissiveColor", kind)
    shown.ConnectToSource(colours(stage, path))
    material.CreateSurfaceOutput().ConnectToSource(surface.ConnectableAPI(), "surface")
    return material


def _vertex_colours(stage: Usd.Stage, path: str) -> UsdShade.Output:
    """A shader that reads the colour of the vertices."""
    from pxr import Sdf

    reader = _shader(stage, f"{path}/colours", "UsdPrimvarReader_float3")
    reader.CreateInput("varname", Sdf.ValueTypeNames.String).Set("displayColor")
    return reader.CreateOutput("result", Sdf.ValueTypeNames.Float3)


def _texture(stage: Usd.Stage, path: str, file: str) -> UsdShade.Output:
    """A shader that reads a texture."""
    from pxr import Sdf

    reader = _shader(stage, f"{path}/uvs", "UsdPrimvarReader_float2")
    reader.CreateInput("varname", Sdf.ValueTypeNames.String).Set("st")
    texture = _shader(stage, f"{path}/texture", "UsdUVTexture")
    texture.CreateInput("file", Sdf.ValueTypeNames.Asset).Set(f"./{file}")
    texture.CreateInput("sourceColorSpace", Sdf.ValueTypeNames.Token).Set("sRGB")
    uvs = reader.CreateOutput("result", Sdf.ValueTypeNames.Float2)
    texture.CreateInput("st", Sdf.ValueTypeNames.Float2).ConnectToSource(uvs)
    return texture.CreateOutput("rgb", Sdf.ValueTypeNames.Float3)


def _shader(stage: Usd.Stage, path: str, kind: str) -> UsdShade.Shader:
    from pxr import UsdShade

    shader = UsdShade.Shader.Define(stage, path)
    shader.CreateIdAttr(kind)
    return shader


def _bind(prim: UsdGeom.Mesh, material: UsdShade.Material) -> None:
    from pxr import UsdShade

    UsdShade.MaterialBindingAPI.Apply(prim.GetPrim()).Bind(material)


def _write_jpeg(file: Path, picture: UInt8[np.ndarray, "rows columns 3"]) -> None:
    from PIL import Image

    # Colours at full resolution: pieces of the texture lie close to each other.
    Image.fromarray(picture).save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
