"""Animated GLB and USD in the programs they are made for: Blender and three.js show what the volume render shows."""

from __future__ import annotations

import base64
import io
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import Float
from PIL import Image

from consistent4d_ns.data.cameras import OrbitViews, orbit_views
from consistent4d_ns.export.deforming.animated import meshes_for
from consistent4d_ns.export.deforming.quality import edge_factors, flipped
from consistent4d_ns.export.deforming.template import edges_of
from consistent4d_ns.export.gltf import glb, glb_moving, y_up
from consistent4d_ns.export.moving import MovingMesh
from consistent4d_ns.export.options import MeshOptions, SolidOptions, TimeOptions
from consistent4d_ns.export.sequence import Colouring, exporter
from consistent4d_ns.export.usd import write_moving_usd, write_usd, write_usdz
from consistent4d_ns.media.pictures import render_image
from consistent4d_ns.runs import Run
from tests.export.objects import RADIUS, STRETCH
from tests.export.programs import blender_python, node_modules, served_page

pytestmark = pytest.mark.slow

FPS, FRAMES, SIZE, FOVY = 10, 4, 96, 49.1
SHOWN = (0, 3)
"""Frames that are compared."""
VIEW = orbit_views(25.0, 35.0, 2.0, FOVY)

Picture = Float[np.ndarray, "size size 4"]


@pytest.fixture(scope="module", params=[("texture", True), ("vertex", True), ("texture", False)])
def file(request: pytest.FixtureRequest, ball: Run, tmp_path_factory) -> Path:
    """An animated GLB of the ball, compressed or not."""
    colouring: Colouring
    colouring, compress = request.param
    source = exporter(ball, SolidOptions(resolution=64), TimeOptions(frames=FRAMES))
    path = tmp_path_factory.mktemp("shown") / "ball.glb"
    path.write_bytes(glb(source.meshes(MeshOptions(faces=3000, texture_size=256), colouring), FPS, compress=compress))
    return path


def agreement(ball: Run, frame: int, picture: Picture) -> tuple[float, float]:
    """Silhouette IoU and PSNR on white of a picture and the volume render."""
    rendered = render_image(ball.pipeline.model, VIEW, frame / (FRAMES - 1), SIZE)
    alpha = picture[..., 3:]
    solid, opaque = alpha[..., 0] > 0.5, rendered["accumulation"][..., 0].numpy() > 0.5
    white = picture[..., :3] * alpha + 1.0 - alpha
    error = np.square(white - rendered["rgb"].numpy()).mean()
    return float((solid & opaque).sum() / (solid | opaque).sum()), float(-10.0 * np.log10(error))


def check(ball: Run, pictures: dict[int, Picture]) -> None:
    """Each picture shows its own frame, and no other."""
    for frame, picture in pictures.items():
        overlap, psnr = agreement(ball, frame, picture)
        assert overlap > 0.96, frame
        assert psnr > 25.0, frame
        assert agreement(ball, FRAMES - 1 - frame, picture)[0] < 0.9, frame


def decoded(data: bytes) -> Picture:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA")) / 255.0


@pytest.fixture(scope="module", params=["ball.usdc", "ball.usdz"])
def usd_file(request: pytest.FixtureRequest, ball: Run, tmp_path_factory) -> Path:
    """The ball as USD: with vertex colours, or packed with textures."""
    pytest.importorskip("pxr", reason="needs usd-core")
    source = exporter(ball, SolidOptions(resolution=64), TimeOptions(frames=FRAMES))
    path = tmp_path_factory.mktemp("shown") / request.param
    write, colouring = (write_usdz, "texture") if path.suffix == ".usdz" else (write_usd, "vertex")
    write(path, source.meshes(MeshOptions(faces=3000, texture_size=256), colouring), FPS)
    return path


def test_blender_shows_usd(ball: Run, usd_file: Path, tmp_path: Path):
    test_blender_shows_it(ball, usd_file, tmp_path)


def test_blender_shows_it(ball: Run, file: Path, tmp_path: Path):
    job = {"file": str(file), "fps": FPS, "size": SIZE, "fovy": FOVY, "camera": VIEW.poses()[0].tolist()}
    job |= {"seconds": [frame / FPS for frame in SHOWN], "out": str(tmp_path)}
    (tmp_path / "job.json").write_text(json.dumps(job))
    program = Path(__file__).with_name("blender_render.py")
    command = [blender_python(), str(program), str(tmp_path / "job.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    check(ball, {frame: decoded((tmp_path / f"{i}.png").read_bytes()) for i, frame in enumerate(SHOWN)})


def test_three_js_shows_it(ball: Run, file: Path):
    check(ball, screenshots(file, VIEW, [(frame + 0.5) / FPS for frame in SHOWN], node_modules("three")))


@pytest.fixture(scope="module")
def moving(ball: Run) -> MovingMesh:
    """The ball as one mesh that moves."""
    source = exporter(ball, SolidOptions(resolution=64), TimeOptions(frames=FRAMES))
    options = MeshOptions(faces=3000, texture_size=256, topology="shared")
    said: list[str] = []
    found = meshes_for(source, options, ("texture", "texture"), lambda items, what, total: iter(items), said.append)
    assert isinstance(found, MovingMesh)
    assert said == []
    return found


def test_one_mesh_follows_the_object(ball: Run, moving: MovingMesh):
    """Its colours do not change here, so that one texture is enough; the ball grows longer in x."""
    edges = edges_of(moving.faces)
    for frame, mesh in enumerate(moving.frames()):
        stretch = 1.0 + (STRETCH - 1.0) * frame / (FRAMES - 1)
        radius = np.linalg.norm(mesh.surface.vertices / (stretch, 1.0, 1.0), axis=1)
        # The surface lies a little outside, where the ball's silhouette is half opaque.
        np.testing.assert_allclose(radius, RADIUS + 0.03, atol=0.02)
        positions = moving.positions[frame]
        assert edge_factors(positions, moving.positions[0], edges).max() < 3.0
        assert not flipped(positions, moving.positions[0], moving.faces).any()


@pytest.mark.parametrize("name", ["plain.glb", "compressed.glb", "moving.usdc"])
def test_blender_moves_one_mesh(ball: Run, moving: MovingMesh, tmp_path: Path, name: str):
    """By shape keys, or by points as time samples."""
    file = tmp_path / name
    if file.suffix == ".glb":
        file.write_bytes(glb_moving(moving, FPS, compress=name == "compressed.glb"))
    else:
        pytest.importorskip("pxr", reason="needs usd-core")
        write_moving_usd(file, tmp_path / "moving_texture.png", moving, FPS)
    test_blender_shows_it(ball, file, tmp_path)


@pytest.mark.parametrize("compress", [False, True])
def test_three_js_moves_one_mesh_straight_from_frame_to_frame(
    ball: Run, moving: MovingMesh, tmp_path: Path, compress: bool
):
    file = tmp_path / "moving.glb"
    file.write_bytes(glb_moving(moving, FPS, compress=compress))
    modules = node_modules("three")
    check(ball, screenshots(file, VIEW, [frame / FPS + 1e-4 for frame in SHOWN], modules))
    vertex, last = 17, moving.positions[-1][[17]]
    ends = [y_up(moving.positions[frame][[vertex]])[0] for frame in (1, 2)]
    with served_page({"/": Path(__file__).with_name("three.html"), "/model.glb": file}, modules) as page:
        places = [page.evaluate("([t, v]) => place(t, v)", [at / FPS, vertex]) for at in (1.0, 1.25, 1.5, FRAMES - 0.5)]
    np.testing.assert_allclose(places[0], ends[0], atol=2e-4)
    np.testing.assert_allclose(places[1], 0.75 * ends[0] + 0.25 * ends[1], atol=2e-4)
    np.testing.assert_allclose(places[2], 0.5 * (ends[0] + ends[1]), atol=2e-4)
    np.testing.assert_allclose(places[3], y_up(last)[0], atol=2e-4)


def screenshots(file: Path, view: OrbitViews, seconds: list[float], modules: Path) -> dict[int, Picture]:
    """What three.js draws at some times, by frame."""
    x, y, z = view.poses()[0, :, 3].tolist()
    with served_page({"/": Path(__file__).with_name("three.html"), "/model.glb": file}, modules) as page:
        assert page.evaluate("window.duration") == pytest.approx(FRAMES / FPS)
        found = {}
        for time in seconds:
            arguments = [time, [y, z, x], FOVY, SIZE]
            url = page.evaluate("([seconds, place, fovy, size]) => show(seconds, place, fovy, size)", arguments)
            found[int(time * FPS)] = decoded(base64.b64decode(url.split(",")[1]))
    return found
