"""Exported Gaussians in a public viewer: Spark, in Chromium, shows what the volume render shows."""

from __future__ import annotations

import base64
import importlib.util
from pathlib import Path

import pytest

from consistent4d_ns.export.splats.files import encode
from consistent4d_ns.export.splats.options import SplatFormat
from consistent4d_ns.export.splats.seeding import seed, views_around
from consistent4d_ns.runs import Run
from tests.export.programs import node_modules, served_page
from tests.export.test_shown import FOVY, FRAMES, SIZE, VIEW, Picture, agreement, decoded

pytestmark = pytest.mark.slow


FRAME = 3
"""The frame of `FRAMES` that is shown."""


def test_spark_shows_them(ball: Run, tmp_path: Path):
    formats: list[SplatFormat] = ["ply", "spz"] if importlib.util.find_spec("gaussforge") else ["ply"]
    gaussians = seed(ball.pipeline.model, 48, views_around(VIEW, 8), FRAME / (FRAMES - 1))
    files = [tmp_path / f"ball.{format}" for format in formats]
    for file, format in zip(files, formats, strict=True):
        file.write_bytes(encode(gaussians, format))
    for picture in shown(files, node_modules("@sparkjsdev/spark")):
        overlap, psnr = agreement(ball, FRAME, picture)
        # Splatting widens Gaussians by a part of a pixel: in a picture as small as this, the silhouette grows.
        assert overlap > 0.93
        assert psnr > 24.0
        assert agreement(ball, 0, picture)[0] < overlap - 0.05


def shown(files: list[Path], modules: Path) -> list[Picture]:
    """What Spark draws of each file from `VIEW`."""
    pages = {"/": Path(__file__).with_name("splats.html")} | {f"/{file.name}": file for file in files}
    x, y, z = VIEW.poses()[0, :, 3].tolist()
    cameras = {".spz": ([y, z, x], [0, 1, 0]), ".ply": ([y, -z, -x], [0, -1, 0])}
    with served_page(pages, modules) as page:
        show = "([name, place, up, fovy, size]) => show(name, place, up, fovy, size)"
        urls = [page.evaluate(show, [f"/{file.name}", *cameras[file.suffix], FOVY, SIZE]) for file in files]
    return [decoded(base64.b64decode(url.split(",")[1])) for url in urls]
