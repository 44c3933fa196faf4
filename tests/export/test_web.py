"""The page of `consistent4d export web` in a browser, opened from its file."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import io
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jaxtyping import UInt8
from PIL import Image
from playwright.sync_api import Browser, Page

from consistent4d_ns.export.gltf import glb, glb_moving
from consistent4d_ns.export.moving import MovingMesh
from consistent4d_ns.export.options import MeshOptions, SolidOptions, Timeline, TimeOptions
from consistent4d_ns.export.sequence import exporter
from consistent4d_ns.export.web.content import Content, content_of
from consistent4d_ns.export.web.page import ROOM, file_name, web_page
from consistent4d_ns.runs import Run
from tests.export.objects import STRETCH
from tests.export.programs import ROOT
from tests.viewer.page import ARTEFACTS, new_page, started_browser

pytestmark = pytest.mark.slow

FRAMES, FPS = 5, 10
TITLE = '<img src=x onerror=alert(1)> & "{{script}}"'
SIDEWAYS = 13
"""Presses of a key that turn the object by a quarter, in which the ball shows its stretch."""
BUNDLING = ROOT / "bundling"


@pytest.fixture(scope="module")
def content(ball: Run) -> Content:
    """The ball that grows longer."""
    source = exporter(ball, SolidOptions(resolution=48), TimeOptions(frames=FRAMES, fps=FPS))
    mesh = glb(source.meshes(MeshOptions(faces=1000, texture_size=64), "texture"), source.timeline.fps)
    return content_of(ball, source.timeline, mesh, TITLE)


@pytest.fixture(scope="module")
def file(content: Content, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its page."""
    return written(content, tmp_path_factory.mktemp("web"))


def written(content: Content, folder: Path) -> Path:
    path = folder / "a page.html"
    path.write_text(web_page(content), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started_browser() as started:
        yield started


def opened(browser: Browser, file: Path, script: str = "", **options: Any) -> tuple[Page, list[str]]:
    """The page at rest on its first frame, and every address that it asks for."""
    page, asked = new_page(browser, **options), []
    page.unroute_all()
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: pytest.fail(str(error)))
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    page.add_init_script(script)
    page.emulate_media(reduced_motion="reduce", color_scheme="light")
    page.goto(file.as_uri())
    page.locator("body[data-state]").wait_for()
    return page, asked


def picture(page: Page, canvas: str) -> UInt8[np.ndarray, "height width 4"]:
    """What a canvas shows now."""
    address = page.evaluate(
        "id => { object?.pose(at); object?.draw(0); return document.getElementById(id).toDataURL(); }", canvas
    )
    with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as image:
        return np.array(image.convert("RGBA"))


def shape(page: Page) -> tuple[float, float]:
    """Width and height of the object in pixels."""
    rows, columns = np.nonzero(picture(page, "view")[..., 3] > 128)
    return float(np.ptp(columns) + 1), float(np.ptp(rows) + 1)


def stretch(page: Page) -> float:
    """How much wider than high the object is."""
    width, height = shape(page)
    return width / height


def at(page: Page, frame: int) -> None:
    page.locator(f'body[data-frame="{frame}"]').wait_for()


def press(page: Page, key: str, times: int = 1) -> None:
    for _ in range(times):
        page.keyboard.press(key)


def test_every_moment_is_shown_in_step_with_the_input(browser: Browser, ball: Run, file: Path):
    page, asked = opened(browser, file, height=700)
    assert page.locator("body").get_attribute("data-state") == "ready"
    press(page, "Shift+ArrowRight", SIDEWAYS)
    data = ball.pipeline.datamanager
    truth = [data.reference_images()[data.frame_times.nearest(i / (FRAMES - 1))].movedim(0, -1) for i in range(FRAMES)]
    expected = [255.0 * image.numpy() for image in truth]
    seen = []
    for frame in (0, 4, 1, 3, 2):
        page.locator("#time").fill(str(frame))
        at(page, frame)
        assert stretch(page) == pytest.approx(1.0 + (STRETCH - 1.0) * frame / (FRAMES - 1), abs=0.04), frame
        rgba = picture(page, "film") / 255.0
        white = 255.0 * (rgba[..., :3] * rgba[..., 3:] + 1.0 - rgba[..., 3:])
        errors = [float(np.abs(white - other).mean()) for other in expected]
        assert errors[frame] == pytest.approx(min(errors)), errors  # The first and the last frame are the same.
        seen.append(errors[frame])
    assert max(seen) < 6.0
    middle = picture(page, "view")
    centre = middle[middle.shape[0] // 2, middle.shape[1] // 2]
    assert abs(int(centre[2]) - 128) < 8, "colours are those of the object"
    assert sum(address.startswith("file:") for address in asked) == 1
    assert {address.partition(":")[0] for address in asked} <= {"file", "blob", "data"}


def test_playing(browser: Browser, file: Path):
    page, _ = opened(browser, file)
    press(page, "Shift+ArrowRight", SIDEWAYS)
    page.get_by_role("button", name="Play", exact=True).click()
    at(page, 2)
    page.get_by_role("button", name="Pause").click()
    page.wait_for_timeout(300)
    frame = int(str(page.locator("body").get_attribute("data-frame")))
    assert stretch(page) == pytest.approx(1.0 + (STRETCH - 1.0) * frame / (FRAMES - 1), abs=0.04)
    page.wait_for_timeout(700)
    assert page.locator("body").get_attribute("data-frame") == str(frame)
    page.locator("#speed").select_option("2")
    page.locator("h1").click()
    press(page, "l")
    press(page, "Space")
    page.get_by_role("button", name="Play", exact=True).wait_for()  # It has come to the end.
    at(page, FRAMES - 1)
    press(page, "l")
    press(page, "Space")
    at(page, 1)  # It has begun again.
    press(page, "Home")
    at(page, 0)
    press(page, "End")
    press(page, "ArrowLeft")
    at(page, FRAMES - 2)
    assert page.locator("#time").get_attribute("aria-valuetext") == f"frame {FRAMES - 1} of {FRAMES}"
    assert page.locator("#now").inner_text() == "0.30 / 0.50 s"


def test_turning_and_zooming(browser: Browser, file: Path):
    page, _ = opened(browser, file)
    press(page, "End")
    front = stretch(page)
    assert front == pytest.approx(1.0, abs=0.03)
    page.mouse.move(500, 350)
    page.mouse.down()
    page.mouse.move(660, 350, steps=4)
    page.mouse.up()
    page.wait_for_timeout(1500)  # It comes to rest slowly.
    assert stretch(page) > front + 0.15
    press(page, "0")
    assert stretch(page) == pytest.approx(front, abs=0.01)
    before = shape(page)
    press(page, "-", 3)
    assert shape(page)[1] < 0.85 * before[1]
    press(page, "0")
    page.locator("#view").focus()
    press(page, "ArrowLeft", SIDEWAYS)
    assert stretch(page) > front + 0.3
    turntable = page.get_by_role("button", name="Turntable")
    turntable.click()
    turned = stretch(page)
    page.wait_for_timeout(2500)
    assert abs(stretch(page) - turned) > 0.001
    press(page, "r")
    assert turntable.get_attribute("aria-pressed") == "false"


def test_the_download_is_the_mesh(browser: Browser, content: Content, file: Path):
    page, _ = opened(browser, file)
    with page.expect_download() as download:
        page.locator("#download").click()
    assert Path(download.value.path()).read_bytes() == content.glb
    assert download.value.suggested_filename == "img_src_x_onerror_alert_1_script.glb"


def test_light_dark_and_telephones(browser: Browser, file: Path):
    page, _ = opened(browser, file, width=360, height=740)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("document.documentElement.scrollHeight") <= 740
    for control in page.locator("button:visible, input:visible, #download").all():
        box = control.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360
    assert shape(page)[0] > 0.6 * page.evaluate("$('view').width"), "the object fills the screen"
    light = brightness(page)
    page.emulate_media(color_scheme="dark")
    dark = brightness(page)
    page.get_by_role("button", name="Light or dark").click()
    again = brightness(page)
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTEFACTS / "web.png")
    assert light == again
    assert light[1] - light[0] > 450
    assert dark[0] - dark[1] > 450


def brightness(page: Page) -> list[int]:
    """Of the letters and of the background."""
    colours = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.documentElement).backgroundColor]"
    )
    return [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in colours]


def test_words_are_text_and_nothing_else(browser: Browser, file: Path):
    page, _ = opened(browser, file)
    assert page.title() == page.locator("h1").inner_text() == TITLE
    assert page.locator("img").count() == 1
    press(page, "?")
    about = page.get_by_role("dialog")
    assert "three.js 0.187.0, MIT licence" in about.inner_text()
    page.get_by_text("Licence of three.js").click()
    assert "Permission is hereby granted" in about.inner_text()
    assert file_name("../..") == "object"


def test_without_webgl_there_is_a_picture(browser: Browser, file: Path):
    script = """
    const original = HTMLCanvasElement.prototype.getContext;
    HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
      return kind.startsWith("webgl") ? null : original.call(this, kind, ...rest);
    };
    """
    page, _ = opened(browser, file, script)
    assert page.locator("body").get_attribute("data-state") == "picture"
    assert "This browser offers no WebGL" in page.get_by_role("alert").inner_text()
    poster = page.locator("#poster")
    assert poster.evaluate("image => getComputedStyle(image).opacity") == "1"
    assert poster.evaluate("image => image.naturalWidth") == 640
    press(page, "ArrowRight")
    at(page, 1)
    with page.expect_download():
        page.locator("#download").click()


def test_without_scripts_there_is_a_picture(browser: Browser, file: Path):
    page = browser.new_page(java_script_enabled=False)
    page.goto(file.as_uri())
    assert page.locator("#poster").is_visible()
    assert page.locator("noscript .notice").is_visible()


def test_one_mesh_that_moves(browser: Browser, content: Content, tmp_path: Path):
    """A square that becomes twice as wide: it moves between frames, too, and is shown as large as fits."""
    mesh = glb_moving(widening(frames=12), FPS)
    timeline = Timeline(tuple(np.linspace(0.0, 1.0, 12).tolist()), FPS)
    shaped = dataclasses.replace(content, glb=mesh, timeline=timeline, shown=[0] * 12)
    page, _ = opened(browser, written(shaped, tmp_path))
    assert page.locator("body").get_attribute("data-state") == "ready"
    for position in (0.0, 11.0, 5.5):
        page.locator("#time").fill(str(position))
        assert stretch(page) == pytest.approx(1.0 + position / 11, abs=0.03)
    room = picture(page, "view").shape
    page.locator("#time").fill("11")
    assert max(np.divide(shape(page), (room[1], room[0]))) > 0.5


def widening(frames: int) -> MovingMesh:
    """A square in front of the camera, which becomes twice as wide along the camera's horizontal axis."""
    corners = np.array([[0, -1, -1], [0, 1, -1], [0, 1, 1], [0, -1, 1]], np.float32) / 4.0
    widths = np.linspace(1.0, 2.0, frames, dtype=np.float32)[:, None, None]
    positions = corners * np.concatenate((np.ones_like(widths), widths, np.ones_like(widths)), axis=2)
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    return MovingMesh(positions, faces, colours=np.full((4, 3), 0.5, np.float32))


def test_nothing_in_the_page_ends_its_scripts_or_loads(content: Content, file: Path):
    text = file.read_text(encoding="utf-8")
    assert text.count("</script") == text.count("<script") == 4
    assert not re.search(r"(?:src|href)=\"(?!data:)", text)
    (packed,) = re.findall(r'id="model">([^<]*)<', text)
    assert gzip.decompress(base64.b64decode(packed)) == content.glb
    assert "default-src 'none'" in text


def test_three_js_is_what_the_script_makes(tmp_path: Path):
    """And of one version everywhere."""
    pinned = [json.loads((folder / "package.json").read_text()) for folder in (BUNDLING, ROOT / "tests" / "export")]
    version = pinned[0]["dependencies"]["three"]
    assert pinned[1]["dependencies"]["three"] == version
    assert (ROOM / "three.min.js").read_text(encoding="utf-8").startswith(f"/* three.js {version},")
    if shutil.which("node") is None or not (BUNDLING / "node_modules" / "esbuild").is_dir():
        pytest.skip("needs npm: npm install --prefix bundling")
    subprocess.run(["node", str(BUNDLING / "build.mjs"), str(tmp_path)], check=True, timeout=120)
    for name in ("three.min.js", "three.LICENSE"):
        assert (tmp_path / name).read_bytes() == (ROOM / name).read_bytes(), f"npm run build --prefix {BUNDLING}"
