"""One USD file whose mesh changes from frame to frame: points, faces, normals and colours are time samples."""

# pyright: reportAttributeAccessIssue=false
# (USD's modules are filled when they are imported.)

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from consistent4d_ns.errors import InputError
from consistent4d_ns.export.gltf import to_linear
from consistent4d_ns.export.sequence import Mesh


def check_usd() -> None:
    """Raises: InputError: USD's library is missing."""
    try:
        import pxr  # noqa: F401
    except ImportError as error:
        raise InputError("USD files need usd-core: pip install 'consistent4d_ns[usd]'.") from error


def write_usd(path: Path, meshes: Iterable[Mesh], fps: float) -> None:
    """Write meshes with a colour per vertex; z is up, as in the world here, and the file says so.

    Raises:
        InputError: USD's library is missing.
    """
    check_usd()
    from pxr import Sdf, Usd, UsdGeom, Vt

    stage = Usd.Stage.CreateNew(str(path))
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.z)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    stage.SetTimeCodesPerSecond(fps)
    stage.SetFramesPerSecond(fps)
    root = UsdGeom.Xform.Define(stage, "/consistent4d")
    stage.SetDefaultPrim(root.GetPrim())
    prim = UsdGeom.Mesh.Define(stage, "/consistent4d/mesh")
    prim.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    prim.SetNormalsInterpolation(UsdGeom.Tokens.vertex)
    colour = UsdGeom.PrimvarsAPI(prim).CreatePrimvar(
        "displayColor", Sdf.ValueTypeNames.Color3fArray, UsdGeom.Tokens.vertex
    )
    frame = -1
    for frame, mesh in enumerate(meshes):
        surface, colours = mesh.surface, mesh.colours
        assert colours is not None
        prim.CreatePointsAttr().Set(Vt.Vec3fArray.FromNumpy(surface.vertices), frame)
        prim.CreateNormalsAttr().Set(Vt.Vec3fArray.FromNumpy(surface.normals), frame)
        prim.CreateFaceVertexIndicesAttr().Set(Vt.IntArray.FromNumpy(surface.faces.ravel()), frame)
        counts = np.full(len(surface.faces), 3, np.int32)
        prim.CreateFaceVertexCountsAttr().Set(Vt.IntArray.FromNumpy(counts), frame)
        extent = np.stack((surface.vertices.min(axis=0), surface.vertices.max(axis=0)))
        prim.CreateExtentAttr().Set(Vt.Vec3fArray.FromNumpy(extent), frame)
        colour.Set(Vt.Vec3fArray.FromNumpy(to_linear(colours).astype(np.float32)), frame)
    stage.SetStartTimeCode(0)
    stage.SetEndTimeCode(frame)
    stage.Save()
