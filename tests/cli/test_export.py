"""`consistent4d export`, from a finished run to files; and what is said, in one line, when that cannot be done."""

# pyright: reportAttributeAccessIssue=false
# (USD's modules are filled when they are imported.)

from __future__ import annotations

import base64
import errno
import gzip
import io
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
import yaml
from nerfstudio.engine.trainer import TrainerConfig
from PIL import Image

from consistent4d_ns.cli import export as command
from consistent4d_ns.cli.commands import app
from consistent4d_ns.errors import InputError
from consistent4d_ns.export import files, gltf, sequence, usd
from consistent4d_ns.export.deforming import animated, comparing
from consistent4d_ns.export.deforming.keeping import FOLDER
from consistent4d_ns.export.gltf import y_up
from tests.export.test_gltf import array, document
from tests.support.commands import run_command
from tests.support.disks import file_limit
from tests.support.tiny import FRAMES, tiny_run

pytestmark = pytest.mark.slow

COARSE = ("--resolution", "32", "--faces", "400")
SMALL = (*COARSE, "--topology", "frames")
ONE = ("--resolution", "24", "--faces", "200", "--times", "0", "0.1", "--texture-size", "64")
"""Options with which one mesh is fitted quickly: there is no frame between two."""
FEW: dict[str, tuple[str, ...]] = dict.fromkeys(
    ("mesh", "usd", "web"), ("--faces", "400", "--texture-size", "64", "--topology", "frames")
)
FEW |= {"points": ("--count", "50")}
"""Options that make each export quick, by command."""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Folder of a run of a few steps: still about the ball that training starts from."""
    return tiny_run(tmp_path_factory.mktemp("export"), 2)


@pytest.fixture(autouse=True)
def nothing_kept(run: Path) -> None:
    """No test uses what an earlier one has fitted."""
    shutil.rmtree(run / FOLDER, ignore_errors=True)


def export(kind: str, config: Path, out: Path, *options: str) -> None:
    """Run the command in this process."""
    app.cli(args=["export", kind, str(config), str(out), *options])


def message(kind: str, config: Path, out: Path, *options: str) -> str:
    """What is said when it cannot be done."""
    with pytest.raises(InputError) as raised:
        export(kind, config, out, *options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def unexpected(*_: Any) -> None:
    raise AssertionError("unexpected call")


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def loaded(path: Path) -> trimesh.Trimesh:
    mesh = trimesh.load(path, process=False)
    assert isinstance(mesh, trimesh.Trimesh)
    return mesh


def keep_first(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which is called once and then gives the same result."""
    kept: list[Any] = []

    def once(*arguments: Any) -> Any:
        kept.extend([] if kept else [function(*arguments)])
        return kept[0]

    return once


def visual(mesh: trimesh.Trimesh) -> Any:
    """What a mesh is painted with."""
    return mesh.visual


def test_an_animated_glb_has_the_frames_of_the_source(run: Path, tmp_path: Path, capsys):
    out = tmp_path / "object.glb"
    export("mesh", run / "config.yml", out, *SMALL, "--texture-size", "64")
    found = document(out.read_bytes())
    assert len(found["meshes"]) == len(found["images"]) == FRAMES
    ends = [found["accessors"][sampler["input"]]["max"][0] for sampler in found["animations"][0]["samplers"]]
    assert ends == pytest.approx([FRAMES / 16] * FRAMES)
    assert f"{FRAMES} frames, 16 per second" in capsys.readouterr().out
    assert names(tmp_path) == ["object.glb"]


@pytest.mark.parametrize(
    ("format", "options", "suffixes"),
    [
        ("glb", ("--colouring", "vertex"), [".glb"]),
        ("obj", ("--texture-size", "64"), [".mtl", ".obj", ".png"]),
        ("obj", ("--colouring", "vertex"), [".obj"]),
        ("ply", (), [".ply"]),
    ],
)
def test_a_numbered_sequence(run: Path, tmp_path: Path, format: str, options, suffixes):
    out = tmp_path / "meshes"
    export("mesh", run, out, *SMALL, "--format", format, "--times", "0", "0.5", *options)
    frames = [f"frame_{frame:04d}{suffix}" for frame in range(2) for suffix in suffixes]
    assert names(out) == sorted([*frames, "manifest.json", "sequence.json"])
    index = json.loads((out / "sequence.json").read_text())
    assert (index["times"], index["fps"], index["up"]) == ([0.0, 0.5], 16.0, "y" if format == "glb" else "z")
    if format == "glb":
        return
    mesh = loaded(out / f"frame_0001.{format}")
    assert 100 < len(mesh.faces) <= 400
    assert np.abs(mesh.bounds).max() < 1.0
    outwards = (mesh.vertex_normals * mesh.vertices).sum(axis=1) > 0
    assert outwards.mean() > 0.9
    assert visual(mesh).kind == ("texture" if ".png" in suffixes else "vertex")


def test_by_default_one_mesh_moves_through_all_frames(run: Path, tmp_path: Path, capsys):
    export("mesh", run, tmp_path / "object.glb", *COARSE, "--texture-size", "64")
    found = document((tmp_path / "object.glb").read_bytes())
    assert len(found["meshes"]) == len(found["images"]) == 1
    assert len(found["meshes"][0]["primitives"][0]["targets"]) == FRAMES - 1
    (channel,) = found["animations"][0]["channels"]
    assert channel["target"]["path"] == "weights"
    assert "one mesh that moves" in capsys.readouterr().out


def test_vertices_have_the_same_order_in_all_formats(run: Path, tmp_path: Path, monkeypatch):
    # The mesh is fitted once for all formats.
    monkeypatch.setattr(animated, "motion_of", keep_first(animated.motion_of))
    options = (*ONE, "--topology", "shared")
    for format in ("glb", "obj", "ply"):
        export("mesh", run, tmp_path / format, *options, "--format", format)
    assert {"object.mtl", "object.png"} < set(names(tmp_path / "obj"))
    shapes = [loaded(tmp_path / "ply" / f"frame_000{frame}.ply") for frame in range(2)]
    np.testing.assert_array_equal(shapes[0].faces, shapes[1].faces)
    count = len(shapes[0].vertices)
    for frame, shape in enumerate(shapes):
        lines = (tmp_path / "obj" / f"frame_000{frame}.obj").read_text().splitlines()
        rows = np.array([line.split()[1:4] for line in lines if line.startswith("v ")], float)
        # Copies along the texture's seams come after all vertices.
        np.testing.assert_allclose(rows[:count], shape.vertices, atol=1e-5)
        contents = (tmp_path / "glb" / f"frame_000{frame}.glb").read_bytes()
        found = document(contents)
        stored = array(contents, found, found["meshes"][0]["primitives"][0]["attributes"]["POSITION"])
        np.testing.assert_allclose(stored[:count] * found["nodes"][0]["scale"][0], y_up(shape.vertices), atol=1e-4)
        assert len(stored) == len(rows)


def test_usd_of_one_mesh_has_a_texture_beside_it(run: Path, tmp_path: Path):
    pytest.importorskip("pxr", reason="needs usd-core")
    from pxr import Usd, UsdGeom, UsdShade

    options = (*COARSE, "--frames", "3", "--texture-size", "64", "--topology", "shared")
    export("usd", run, tmp_path / "object.usdc", *options)
    assert names(tmp_path) == ["object.usdc", "object_texture.png"]
    stage = Usd.Stage.Open(str(tmp_path / "object.usdc"))
    mesh = UsdGeom.Mesh(stage.GetPrimAtPath("/consistent4d/mesh"))
    assert mesh.GetPointsAttr().GetTimeSamples() == [0.0, 1.0, 2.0]
    assert mesh.GetFaceVertexIndicesAttr().GetTimeSamples() == []
    assert len(UsdGeom.PrimvarsAPI(mesh).GetPrimvar("st").Get()) == len(mesh.GetPointsAttr().Get(1.0))
    surface = preview_surface(mesh.GetPrim())
    texture = UsdShade.Shader(surface.GetInput("emissiveColor").GetConnectedSources()[0][0].source)
    assert texture.GetInput("file").Get().path == "./object_texture.png"
    export("usd", run, tmp_path / "object.usdz", *options)
    with zipfile.ZipFile(tmp_path / "object.usdz") as package:
        assert sorted(package.namelist()) == ["object.jpg", "object.usdc"]
    export("usd", run, tmp_path / "still.usdc", *COARSE, "--frames", "1", "--texture-size", "64")
    assert (tmp_path / "still_texture.png").exists()
    (tmp_path / "other_texture.png").write_text("mine")
    assert "other_texture.png exists" in message("usd", run, tmp_path / "other.usdc", *options)
    assert (tmp_path / "other_texture.png").read_text() == "mine"


@pytest.mark.parametrize(("topology", "count"), [("auto", 2), ("shared", 1)])
def test_where_one_mesh_does_not_follow_this_is_said(
    run: Path, tmp_path: Path, monkeypatch, capsys, topology: str, count: int
):
    monkeypatch.setattr(animated, "MOST_MISSED", -1.0)
    options = (*COARSE, "--frames", "2", "--texture-size", "64", "--topology", topology)
    export("mesh", run, tmp_path / "object.glb", *options)
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "does not follow" in line]
    assert "at frame 0 (time 0)" in said or "at frame 1 (time 1)" in said
    assert ("a mesh per frame is written" in said) == (topology == "auto")
    assert len(document((tmp_path / "object.glb").read_bytes())["meshes"]) == count


def test_where_one_mesh_looks_worse_a_mesh_per_frame_is_written(run: Path, tmp_path: Path, monkeypatch, capsys):
    options = (*COARSE, "--frames", "2", "--texture-size", "64")
    export("mesh", run, tmp_path / "frames.glb", *options, "--topology", "frames")
    monkeypatch.setattr(comparing, "LEAST_PSNR", 200.0)
    monkeypatch.setattr(animated, "MOST_LEFT", 2.0)  # Both kinds of mesh are far below such a bound.
    # The surfaces that one mesh was fitted to are not looked for again.
    monkeypatch.setattr(sequence, "extract", unexpected)
    export("mesh", run, tmp_path / "object.glb", *options)
    assert (tmp_path / "object.glb").read_bytes() == (tmp_path / "frames.glb").read_bytes()
    assert "dB (at least 200); a mesh per frame is written" in capsys.readouterr().err
    assert len(document((tmp_path / "object.glb").read_bytes())["meshes"]) == 2
    monkeypatch.setattr(animated, "motion_of", unexpected)
    export("mesh", run, tmp_path / "one.glb", *options, "--topology", "shared")
    assert len(document((tmp_path / "one.glb").read_bytes())["meshes"]) == 1


def stamps(folder: Path) -> dict[str, int]:
    """When each file of a run was written, but for the meshes that are kept."""
    files = [file for file in folder.rglob("*") if file.is_file() and FOLDER not in file.parts]
    return {str(file.relative_to(folder)): file.stat().st_mtime_ns for file in files}


def test_a_mesh_that_was_fitted_before_is_used_again(run: Path, tmp_path: Path, monkeypatch, capsys):
    before = stamps(run)
    export("web", run, tmp_path / "page.html", *ONE)
    capsys.readouterr()
    monkeypatch.setattr(animated, "motion_of", unexpected)
    export("mesh", run, tmp_path / "meshes", *ONE, "--format", "obj", "--fps", "5")
    export("mesh", run, tmp_path / "again.glb", *ONE)
    (file,) = (run / FOLDER).iterdir()
    assert capsys.readouterr().err.count(f"What was fitted before is used again; to fit anew, delete {file}\n") == 2
    assert (tmp_path / "meshes" / "object.png").exists()
    (packed,) = re.findall(r'id="model">([^<]*)<', (tmp_path / "page.html").read_text(encoding="utf-8"))
    assert (tmp_path / "again.glb").read_bytes() == gzip.decompress(base64.b64decode(packed))
    assert stamps(run) == before, "nothing else of the run has changed"
    with pytest.raises(AssertionError, match="unexpected call"):
        export("mesh", run, tmp_path / "other.glb", *ONE, "--colouring", "vertex")
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    change_weights(copy)
    with pytest.raises(AssertionError, match="unexpected call"):
        export("mesh", copy, tmp_path / "other.glb", *ONE, "--data", str(run.parents[3] / "toy"))


def change_weights(run: Path) -> None:
    """As if the run had been trained a little further."""
    (checkpoint,) = (run / "nerfstudio_models").iterdir()
    state = torch.load(checkpoint, weights_only=True)
    name = next(name for name, value in state["pipeline"].items() if value.is_floating_point() and "field" in name)
    state["pipeline"][name].view(-1)[0] += 1e-3
    torch.save(state, checkpoint)


def test_that_one_mesh_does_not_do_is_found_once(run: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(animated, "MOST_MISSED", -1.0)
    export("mesh", run, tmp_path / "object.glb", *ONE)
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "does not follow" in line]
    monkeypatch.setattr(animated, "motion_of", unexpected)
    export("mesh", run, tmp_path / "again.glb", *ONE)
    assert said in capsys.readouterr().err.splitlines()
    assert (tmp_path / "again.glb").read_bytes() == (tmp_path / "object.glb").read_bytes()


def test_a_run_that_cannot_be_written_is_exported_all_the_same(run: Path, tmp_path: Path, capsys):
    (run / FOLDER).write_text("in the way")
    try:
        export("mesh", run, tmp_path / "object.glb", *ONE, "--topology", "shared", "--colouring", "vertex")
        assert (run / FOLDER).read_text() == "in the way"
    finally:
        (run / FOLDER).unlink()
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "is not kept" in line]
    assert line.endswith(f"{FOLDER} is a file; the next export will fit one mesh anew.")
    assert (tmp_path / "object.glb").read_bytes()[:4] == b"glTF"


def test_formats_hold_the_same_shape_and_colours(run: Path, tmp_path: Path):
    for format in ("obj", "ply"):
        export("mesh", run, tmp_path / format, *SMALL, "--format", format, "--frames", "1", "--colouring", "vertex")
    first, second = (loaded(tmp_path / format / f"frame_0000.{format}") for format in ("obj", "ply"))
    np.testing.assert_allclose(first.vertices, second.vertices, atol=1e-5)
    np.testing.assert_array_equal(visual(first).vertex_colors, visual(second).vertex_colors)


def test_frames_take_as_long_as_the_source(run: Path, tmp_path: Path):
    export("points", run, tmp_path / "points", "--resolution", "32", "--count", "50", "--frames", "3")
    index = json.loads((tmp_path / "points" / "sequence.json").read_text())
    assert index["times"] == [0.0, 0.5, 1.0]
    assert index["fps"] == pytest.approx(16 * 3 / FRAMES)


def test_points_have_colours_and_normals(run: Path, tmp_path: Path):
    export("points", run, tmp_path / "points", "--resolution", "32", "--count", "500", "--times", "0")
    header, _, body = (tmp_path / "points" / "frame_0000.ply").read_bytes().partition(b"end_header\n")
    assert b"element vertex 500" in header
    layout = [(name, "<f4") for name in ("x", "y", "z", "nx", "ny", "nz")] + [(c, "u1") for c in "rgba"]
    points = np.frombuffer(body, np.dtype(layout), count=500)
    normals = np.stack([points[name] for name in ("nx", "ny", "nz")], axis=1)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1.0, atol=1e-3)
    assert (points["a"] == 255).all()
    assert len(np.unique(points["r"])) > 1


def test_usd_has_a_mesh_of_its_own_at_every_time(run: Path, tmp_path: Path):
    pytest.importorskip("pxr", reason="needs usd-core")
    from pxr import Usd, UsdGeom

    export("usd", run, tmp_path / "object.usdc", *SMALL, "--frames", "3")
    stage = Usd.Stage.Open(str(tmp_path / "object.usdc"))
    assert UsdGeom.GetStageUpAxis(stage) == "Z"
    assert (stage.GetStartTimeCode(), stage.GetEndTimeCode()) == (0.0, 2.0)
    mesh = UsdGeom.Mesh(stage.GetPrimAtPath("/consistent4d/mesh"))
    colour = UsdGeom.PrimvarsAPI(mesh).GetPrimvar("displayColor")
    for frame in range(3):
        count = len(mesh.GetPointsAttr().Get(frame))
        assert len(colour.Get(frame)) == count
        indices = np.array(mesh.GetFaceVertexIndicesAttr().Get(frame))
        assert indices.max() == count - 1
        assert len(indices) == 3 * len(mesh.GetFaceVertexCountsAttr().Get(frame))
        assert UsdGeom.Mesh.ValidateTopology(
            mesh.GetFaceVertexIndicesAttr().Get(frame), mesh.GetFaceVertexCountsAttr().Get(frame), count
        )[0]


@pytest.mark.parametrize("lit", [False, True])
def test_usd_shows_its_colours_by_a_preview_surface(run: Path, tmp_path: Path, lit: bool):
    pytest.importorskip("pxr", reason="needs usd-core")
    from pxr import Usd, UsdGeom, UsdShade

    out = tmp_path / "object.usda"
    export("usd", run, out, *SMALL, "--frames", "2", *(["--lit"] if lit else []))
    stage = Usd.Stage.Open(str(out))
    mesh = UsdGeom.Mesh(stage.GetPrimAtPath("/consistent4d/mesh"))
    surface = preview_surface(mesh.GetPrim())
    shown, dark = ("diffuseColor", "emissiveColor") if lit else ("emissiveColor", "diffuseColor")
    reader = UsdShade.Shader(surface.GetInput(shown).GetConnectedSources()[0][0].source)
    assert reader.GetIdAttr().Get() == "UsdPrimvarReader_float3"
    assert reader.GetInput("varname").Get() == "displayColor"
    assert lit or tuple(surface.GetInput(dark).Get()) == (0.0, 0.0, 0.0)


def test_a_package_for_phones_has_a_textured_mesh_for_every_frame(run: Path, tmp_path: Path):
    pytest.importorskip("pxr", reason="needs usd-core")
    from pxr import Usd, UsdGeom, UsdShade, UsdValidation

    out = tmp_path / "object.usdz"
    export("usd", run, out, *SMALL, "--texture-size", "64", "--frames", "3")
    with zipfile.ZipFile(out) as package:
        assert sorted(package.namelist()) == ["frame_0000.jpg", "frame_0001.jpg", "frame_0002.jpg", "object.usdc"]
        # As the format demands: the scene first, nothing compressed.
        assert package.infolist()[0].filename == "object.usdc"
        assert {entry.compress_type for entry in package.infolist()} == {zipfile.ZIP_STORED}
        picture = Image.open(io.BytesIO(package.read("frame_0001.jpg")))
        assert (picture.format, picture.size) == ("JPEG", (64, 64))
    stage = Usd.Stage.Open(str(out))
    validators = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
    assert UsdValidation.ValidationContext(validators).Validate(stage) == []
    assert UsdGeom.GetStageUpAxis(stage) == "Y"
    assert (stage.GetStartTimeCode(), stage.GetEndTimeCode()) == (0.0, 3.0)
    for frame in range(3):
        node = UsdGeom.Xformable(stage.GetPrimAtPath(f"/consistent4d/frame_{frame:04d}"))
        sizes = [node.GetLocalTransformation(time)[0][0] for time in (0.0, 0.5, 1.0, 1.5, 2.0, 2.9)]
        assert sizes == [float(index // 2 == frame) for index in range(6)]
        surface = preview_surface(stage.GetPrimAtPath(f"/consistent4d/frame_{frame:04d}/mesh"))
        texture = UsdShade.Shader(surface.GetInput("emissiveColor").GetConnectedSources()[0][0].source)
        assert texture.GetInput("file").Get().path == f"./frame_{frame:04d}.jpg"


def preview_surface(prim) -> Any:
    """The UsdPreviewSurface of a mesh's material."""
    from pxr import UsdShade

    material, _ = UsdShade.MaterialBindingAPI(prim).ComputeBoundMaterial()
    surface, _, _ = material.ComputeSurfaceSource()
    assert surface.GetIdAttr().Get() == "UsdPreviewSurface"
    return surface


@pytest.mark.parametrize("name", ["object.usdc", "object.usdz"])
def test_usd_that_does_not_fit_on_the_disk_is_not_kept(run: Path, tmp_path: Path, name: str):
    pytest.importorskip("pxr", reason="needs usd-core")
    options = (*SMALL, "--frames", "2", "--texture-size", "64")
    export("usd", run, tmp_path / name, *options)
    # Too small by a little: the scene itself may still fit, its package does not.
    with file_limit((tmp_path / name).stat().st_size - 10):
        said = message("usd", run, tmp_path / f"other_{name}", *options)
    assert f"cannot write {tmp_path / f'other_{name}'}: " in said
    assert said.endswith("; make room, or give another place.")
    assert names(tmp_path) == [name]


def test_without_usd_the_package_is_named(run: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    said = message("usd", run, tmp_path / "object.usda")
    assert said.endswith("the package usd-core is not installed: run `pip install usd-core`.")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("mesh", ("--times", "0", "1.5"), ("time 1.5 of --times", "outside 0..1")),
        ("mesh", ("--times", "-0.1"), ("time -0.1 of --times",)),
        ("mesh", ("--times", "nan"), ("time nan of --times",)),
        ("mesh", ("--frames", "0"), ("--frames 0", "from 1")),
        ("mesh", ("--frames", "2", "--times", "0"), ("--times and --frames",)),
        ("mesh", ("--fps", "0"), ("--fps is 0",)),
        ("mesh", ("--resolution", "8"), ("--resolution 8", "16 to 512")),
        ("mesh", ("--resolution", "4096"), ("--resolution 4096",)),
        ("mesh", ("--faces", "3"), ("--faces 3", "from 100")),
        ("mesh", ("--faces", "300000", "--topology", "shared"), ("--faces 300000", "--topology frames")),
        ("mesh", ("--texture-size", "1"), ("--texture-size 1", "from 64")),
        ("mesh", ("--density", "0"), ("--density 0", "above 0")),
        ("mesh", ("--opacity", "1"), ("--opacity 1", "less than 1")),
        ("mesh", ("--min-part", "2"), ("--min-part 2", "0 to 1")),
        ("mesh", ("--format", "ply", "--colouring", "texture"), ("PLY", "--colouring vertex")),
        ("points", ("--count", "0"), ("--count 0", "from 1")),
        ("usd", (), (".usd, .usda, .usdc, .usdz",)),
        ("web", (), ("out cannot be a page: give a name that ends in .html.",)),
    ],
)
def test_options_out_of_range(tmp_path: Path, kind: str, options, words):
    """Refused before anything is loaded: there is no run here at all."""
    said = message(kind, tmp_path / "config.yml", tmp_path / "out", *options)
    assert [word for word in words if word not in said] == []
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("kind", "out", "options", "words"),
    [
        ("mesh", "object.fbx", (), ("ends in .fbx", "NAME.glb", "--format glb, obj or ply")),
        ("mesh", "object.glb", ("--format", "obj"), ("object.glb is one file", "give a folder")),
        ("points", "object.ply", (), ("ends in .ply", "give a folder")),
        ("usd", "object.glb", (), ("object.glb", ".usda")),
        ("web", "object.glb", (), ("object.glb cannot be a page",)),
        ("web", "page.html", ("--faces", "3"), ("--faces 3", "from 100")),
    ],
)
def test_names_of_other_formats(tmp_path: Path, kind: str, out: str, options, words):
    said = message(kind, tmp_path / "config.yml", tmp_path / out, *options)
    assert [word for word in words if word not in said] == []


@pytest.mark.parametrize(("options", "title"), [((), "toy"), (("--title", "Our <cat>"), "Our &lt;cat&gt;")])
def test_a_page_is_one_file(run: Path, tmp_path: Path, capsys, options, title: str):
    out = tmp_path / "page.html"
    export("web", run, out, *SMALL, "--texture-size", "64", "--frames", "12", *options)
    text = out.read_text(encoding="utf-8")
    assert f"<title>{title}</title>" in text
    (setting,) = re.findall(r'id="setting">(.*?)</script>', text)
    said = json.loads(setting)
    assert (said["frames"], said["fps"]) == (12, pytest.approx(16 * 12 / FRAMES))
    assert len(said["pictures"]) == FRAMES, "each picture of the input is there once"
    assert (len(said["shown"]), max(said["shown"])) == (12, FRAMES - 1)
    assert said["camera"] == pytest.approx([0.0, 0.0, 2.0], abs=1e-6)
    (packed,) = re.findall(r'id="model">([^<]*)<', text)
    assert len(document(gzip.decompress(base64.b64decode(packed)))["meshes"]) == 12
    assert capsys.readouterr().out.endswith(f"{out}: {out.stat().st_size / 1e6:.1f} MB; open it in a browser.\n")
    assert names(tmp_path) == ["page.html"]


def test_configurations_of_others_and_lost_checkpoints(run: Path, tmp_path: Path):
    assert "does not exist" in message("mesh", tmp_path / "config.yml", tmp_path / "a.glb")
    other = tmp_path / "config.yml"
    other.write_text(yaml.dump(TrainerConfig(method_name="nerfacto")))
    assert "is a configuration of nerfacto" in message("mesh", other, tmp_path / "a.glb")
    (checkpoint,) = (run / "nerfstudio_models").iterdir()
    assert "is a checkpoint: give a run's folder" in message("points", checkpoint, tmp_path / "points")
    assert names(tmp_path) == ["config.yml"]


def test_what_is_there_is_kept_unless_told_otherwise(run: Path, tmp_path: Path):
    once = (*SMALL, "--frames", "1", "--colouring", "vertex")
    out, folder = tmp_path / "object.glb", tmp_path / "meshes"
    out.write_text("mine")
    assert "exists: give another name, or --overwrite" in message("mesh", run, out)
    assert out.read_text() == "mine"
    export("mesh", run, out, *once, "--overwrite")
    assert out.read_bytes()[:4] == b"glTF"
    export("mesh", run, folder, *once)
    assert "is not empty" in message("mesh", run, folder)
    export("mesh", run, folder, *once, "--format", "obj", "--overwrite")
    assert names(folder) == ["frame_0000.obj", "manifest.json", "sequence.json"]


@pytest.mark.parametrize(("kind", "name"), [("mesh", "run.glb"), ("usd", "run.usdz"), ("web", "run.html")])
def test_a_configuration_is_not_replaced_by_its_own_export(tmp_path: Path, kind: str, name: str):
    (tmp_path / name).write_text("a configuration")
    words = message(kind, tmp_path / name, tmp_path / name, "--overwrite")
    assert "is where a run has its configuration or a checkpoint: give another name" in words
    assert (tmp_path / name).read_text() == "a configuration"
    assert names(tmp_path) == [name]


@pytest.mark.parametrize(
    ("kind", "out", "place", "function"),
    [
        ("mesh", "meshes", files, "encode"),
        ("mesh", "object.glb", gltf, "encoded"),
        ("points", "points", files, "ply"),
        ("usd", "object.usda", usd, "to_linear"),
        ("usd", "object.usdz", usd, "y_up"),
        ("web", "page.html", gltf, "encoded"),
    ],
)
def test_a_full_disk_leaves_nothing(run: Path, tmp_path: Path, monkeypatch, kind: str, out: str, place, function: str):
    """The disk is full when the second frame comes."""
    original, calls = getattr(place, function), []

    def fill(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(*arguments, **options)

    monkeypatch.setattr(place, function, fill)
    if place is usd:
        pytest.importorskip("pxr", reason="needs usd-core")
    said = message(kind, run, tmp_path / out, "--resolution", "32", "--frames", "2", *FEW[kind])
    assert "No space left on device" in said
    assert out in said
    assert names(tmp_path) == []


PLACES = [("mesh", "a.glb"), ("mesh", "meshes"), ("points", "meshes"), ("usd", "a.usdz"), ("web", "a.html")]
"""Commands and names of what they write."""


@pytest.mark.parametrize(("kind", "out"), PLACES)
def test_an_interruption_leaves_nothing(run: Path, tmp_path: Path, monkeypatch, kind: str, out: str):
    """Ctrl-C while the second surface is extracted."""
    original, calls = sequence.extract, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments)

    if kind == "usd":
        pytest.importorskip("pxr", reason="needs usd-core")
    monkeypatch.setattr(sequence, "extract", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(kind, run, tmp_path / out, "--resolution", "32", "--frames", "2", *FEW[kind])
    assert names(tmp_path) == []


def test_times_in_the_index_are_short_decimals(run: Path, tmp_path: Path):
    out = tmp_path / "points"
    export("points", run, out, "--resolution", "32", "--count", "50", "--frames", "6")
    assert json.loads((out / "sequence.json").read_text())["times"] == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert "0.2," in (out / "sequence.json").read_text()


@pytest.mark.parametrize(("kind", "out"), PLACES)
def test_an_existing_output_is_refused_before_anything_is_loaded(tmp_path: Path, kind: str, out: str):
    """There is no run here at all."""
    (tmp_path / "meshes").mkdir()
    for name in ("a.glb", "a.usdz", "a.html", "meshes/theirs"):
        (tmp_path / name).write_text("theirs")
    assert "or --overwrite to replace" in message(kind, tmp_path / "nowhere", tmp_path / out)


def test_without_compression_glb_files_need_no_extension(run: Path, tmp_path: Path):
    once = (*SMALL, "--frames", "1", "--texture-size", "64")
    export("mesh", run, tmp_path / "plain.glb", *once, "--no-compress")
    export("mesh", run, tmp_path / "small.glb", *once)
    export("mesh", run, tmp_path / "meshes", *once, "--no-compress")
    for plain in (tmp_path / "plain.glb", tmp_path / "meshes" / "frame_0000.glb"):
        assert "extensionsRequired" not in document(plain.read_bytes())
    required = document((tmp_path / "small.glb").read_bytes())["extensionsRequired"]
    assert sorted(required) == ["EXT_texture_webp", "KHR_mesh_quantization"]


def test_a_place_that_cannot_be_written(run: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    assert "cannot write" in message("mesh", run, tmp_path / "file" / "meshes")
    assert "cannot write" in message("mesh", run, Path("/proc/nowhere/object.glb"))


def test_a_field_without_anything_dense_is_named(run: Path, tmp_path: Path):
    said = message("mesh", run, tmp_path / "object.glb", "--resolution", "32", "--density", "1000", "--opacity", "0")
    assert "frame 0 (time 0): nothing is as dense as 1000" in said
    assert "lower --density" in said
    assert names(tmp_path) == []


def test_the_command_prints_one_line(tmp_path: Path):
    done = run_command("consistent4d", "export", "mesh", "nowhere.yml", "object.glb", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: nowhere.yml does not exist")
    assert "Traceback" not in done.stderr
