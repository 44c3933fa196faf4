"""`consistent4d compare` on small runs: the page in a browser, its figures, and what cannot be compared."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jaxtyping import UInt8
from nerfstudio.configs.base_config import MachineConfig
from PIL import Image
from playwright.sync_api import Browser, Page

from consistent4d_ns.cli.main import main
from consistent4d_ns.data.cameras import OrbitViews
from consistent4d_ns.media.pictures import render_colour, to_bytes
from consistent4d_ns.runs import load_run
from tests.support.stored_run import FOLDER as STORED
from tests.support.tiny import FRAMES, SIZE, tiny_run
from tests.viewer.page import ARTEFACTS, new_page, started_browser

pytestmark = pytest.mark.slow

PICTURES = 8
"""Pictures of each view on the pages."""
STEPS = (70, 80)
"""Steps of the runs: enough for an object that looks different from other sides."""
FILM = ("--seconds", "1", "--fps", str(PICTURES), "--size", "32")
HOSTILE = "<img src=x onerror=alert(1)>{{script}} &amp; $x"
"""Name of a folder."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs on copies of the same frames, with other seeds; the second has a nasty name."""
    folders = []
    for seed, name in enumerate(("plain", HOSTILE)):
        place = tmp_path_factory.mktemp(f"seed{seed}")
        machine = MachineConfig(seed=seed, device_type="cpu")
        folders.append(tiny_run(place, STEPS[seed], machine=machine, timestamp=name))
    return folders


@pytest.fixture(scope="module")
def file(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of both."""
    page = tmp_path_factory.mktemp("page") / "a page.html"
    main(["compare", *map(str, runs), "--out", str(page), *FILM])
    return page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started_browser() as started:
        yield started


def opened(browser: Browser, file: Path, **options: Any) -> tuple[Page, list[str]]:
    """The page at rest on its first picture, and every address that it asks for."""
    page, asked = new_page(browser, **options), []
    page.unroute_all()
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: pytest.fail(str(error)))
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    page.emulate_media(reduced_motion="reduce", color_scheme="light")
    page.goto(file.as_uri())
    page.locator("body[data-ready]").wait_for()
    return page, asked


def at(page: Page, index: int) -> None:
    """Wait until the page shows this picture. (The page's policy forbids `wait_for_function`, which evaluates text.)"""
    page.locator(f'body[data-picture="{index}"]').wait_for()


def shown(page: Page, place: int) -> UInt8[np.ndarray, "size size 3"]:
    """What one of the pictures shows."""
    address = page.evaluate("place => document.querySelector(`canvas[data-place='${place}']`).toDataURL()", place)
    with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as image:
        return np.array(image.convert("RGB"))


def test_pictures_are_those_of_each_run_in_step(browser: Browser, runs: list[Path], file: Path):
    """Against what the models and the frames say of that view and moment."""
    page, asked = opened(browser, file)
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTEFACTS / "comparison.png", full_page=True)
    loaded = [load_run(run).pipeline for run in runs]
    for index in (0, 5, 2):
        page.locator("#time").fill(str(index))
        at(page, index)
        time, turn = index / (PICTURES - 1), 360.0 * index / PICTURES
        data = loaded[0].datamanager
        frame = data.reference_images()[data.frame_times.nearest(time)].movedim(0, -1)
        expected = {0: to_bytes(frame)}
        for number, pipeline in enumerate(loaded):
            view = pipeline.datamanager.input_view
            around = OrbitViews(view.elevation, view.azimuth + turn, view.distance, view.fovy)
            for place, camera in ((1 + 2 * number, view), (2 + 2 * number, around)):
                expected[place] = to_bytes(render_colour(pipeline.model, camera, time, 32))
        assert expected[1].std() > 10, "pictures in which nothing is to be seen prove little"
        errors = {
            place: np.abs(shown(page, place) - picture.astype(float)).mean() for place, picture in expected.items()
        }
        others = np.abs(expected[2] - expected[1].astype(float)).mean() if index else 99.0
        assert max(errors.values()) < min(6.0, 0.7 * others), (index, errors, others)
    assert {re.match(r"[a-z]+:", address)[0] for address in asked} <= {"file:", "blob:"}  # type: ignore[index]
    assert sum(address.startswith("file:") for address in asked) == 1


def test_playing_with_keys_and_controls(browser: Browser, file: Path):
    page, _ = opened(browser, file)
    picture = lambda: int(page.evaluate("document.body.dataset.picture"))  # noqa: E731
    page.keyboard.press("ArrowRight")
    at(page, 1)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")  # There is none before the first.
    at(page, 0)
    page.locator("#speed").select_option("0.5")
    page.locator("h1").click()
    page.keyboard.press(" ")
    page.get_by_role("button", name="Pause").wait_for()
    page.locator('body:not([data-picture="0"])').wait_for()
    assert page.evaluate("film.playbackRate") == 0.5
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Play").wait_for()
    page.wait_for_timeout(300)
    stopped = picture()
    page.wait_for_timeout(600)
    assert picture() == stopped == int(page.locator("#time").input_value())
    page.locator("#time").focus()
    page.keyboard.press("Home")
    at(page, 0)
    assert page.locator("#now").inner_text() == f"1 of {PICTURES}, t = 0.00"
    wide = page.locator("canvas").first.bounding_box()
    page.locator("#size").select_option("large")
    larger = page.locator("canvas").first.bounding_box()
    assert wide is not None
    assert larger is not None
    assert larger["width"] > wide["width"]


def test_the_table_sorts_and_the_legend_singles_out_a_run(browser: Browser, file: Path):
    page, _ = opened(browser, file)
    rows = lambda: [row.get_attribute("data-run") for row in page.locator("#figures tbody tr").all()]  # noqa: E731
    assert rows() == ["0", "1"]
    page.get_by_role("button", name="steps").click()
    assert rows() == ["1", "0"]
    page.get_by_role("button", name="steps").click()
    assert rows() == ["0", "1"]
    curves = page.locator('#charts [data-run="0"]')
    entry = page.locator("#legend button").last
    entry.press("Enter")
    assert entry.get_attribute("aria-pressed") == "true"
    assert all("dim" in str(curve.get_attribute("class")) for curve in curves.all())
    entry.press("Enter")
    page.locator("h1").hover()
    assert not page.locator(".dim").count()


def test_it_fits_a_telephone_and_the_dark(browser: Browser, file: Path):
    page, _ = opened(browser, file, width=360, height=700)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    colours = "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    light = page.evaluate(colours)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(colours)
    brightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (*light, *dark)]
    assert brightness[1] - brightness[0] > 450
    assert brightness[2] - brightness[3] > 450
    page.screenshot(path=ARTEFACTS / "comparison_dark.png", full_page=True)


def test_names_are_text_and_nothing_else(browser: Browser, file: Path):
    page, _ = opened(browser, file)
    assert page.locator("h3").all_inner_texts() == ["Input", "plain", HOSTILE]
    assert page.locator("img").count() == 0


def cells(file: Path, table: str) -> list[list[str]]:
    """The words in the rows of one of the tables."""
    (found,) = re.findall(rf"<h2 id=\"{table}-title\">.*?<table.*?>(.*?)</table>", file.read_text(), re.DOTALL)
    rows = re.findall(r"<tr.*?</tr>", found, re.DOTALL)
    return [[re.sub(r"<.*?>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)] for row in rows]


def test_figures_are_those_of_ns_eval(runs: list[Path], file: Path):
    head, *rows = cells(file, "figures")
    for run, row in zip(runs, rows, strict=True):
        pipeline = load_run(run).pipeline
        pipeline.model.config.render_normals = False
        expected = pipeline.get_average_eval_image_metrics()
        named = dict(zip(head, row, strict=True))
        assert float(named["PSNR, novel views (dB)"]) == pytest.approx(expected["psnr"], abs=0.006)
        assert float(named["SSIM, novel views"]) == pytest.approx(expected["ssim"], abs=0.002)
        assert float(named["IoU, novel views"]) == pytest.approx(expected["iou"], abs=0.002)
        assert float(named["PSNR, input view (dB)"]) > float(named["PSNR, novel views (dB)"])
        effort = json.loads((run / "training.json").read_text())
        assert named["training"] == f"{effort['seconds']:.0f} s"
        assert float(named["peak memory (GiB)"]) == pytest.approx(effort["peak_memory"] / 2**30, abs=0.006)
    assert [row[head.index("steps")] for row in rows] == ["70", "80"]


def test_options_that_differ(file: Path):
    assert cells(file, "options")[1:] == [["machine.seed", "0", "1"], ["max-num-iterations", "70", "80"]]
    assert "were not trained on the same frames" not in file.read_text()


def test_other_frames_and_an_older_version(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A run that was trained on other frames, and left no record, beside one that was cut short."""
    cut = Path(shutil.copytree(runs[0], tmp_path / "cut"))
    config = (cut / "config.yml").read_text().replace("max_num_iterations: 70", "max_num_iterations: 500")
    (cut / "config.yml").write_text(config)
    effort = json.loads((cut / "training.json").read_text())
    (cut / "training.json").write_text(json.dumps(effort | {"last_step": 7}))  # Of a training that went on.
    page = tmp_path / "page.htm"
    main(["compare", str(cut), str(STORED), "--out", str(page), *FILM, "--no-figures"])
    *warnings, last = capsys.readouterr().out.splitlines()
    assert last == str(page)
    assert sum("does not exist any more" in line for line in warnings) == 1
    text = page.read_text()
    assert "were not trained on the same frames" in text
    assert f"toy ({FRAMES} frames, trained at {SIZE} x {SIZE}): cut" in text
    assert "Not trained to the end: cut (70 of 500 steps)." in text
    assert text.count("<strong>") == 0
    assert cells(page, "figures")[0] == ["run", "steps"]
    headings = re.findall(r"<h3>(?:<span[^>]*></span>)?([^<]*)</h3>", text)
    assert [heading.split()[0] for heading in headings] == ["Input", "cut", "Input", headings[3].split()[0]]


def test_damaged_records_cost_their_part_of_the_page(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = Path(shutil.copytree(runs[0], tmp_path / "run"))
    (run / "training.json").write_text('{"seconds": "long"}')
    (run / "losses.jsonl").write_text("theirs")
    main(["compare", str(run), "--out", str(tmp_path / "page.html"), *FILM, "--no-figures"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "training.json is damaged" in printed
    assert "losses.jsonl is damaged" in printed
    text = (tmp_path / "page.html").read_text()
    assert "No losses are recorded" in text
    assert "There is one run only." in text
    (run / "losses.jsonl").write_text("".join(f'{{"step": {i}, "term{i}": 1.0}}\n' for i in range(2000)))
    main(["compare", str(run), "--out", str(tmp_path / "page.html"), *FILM, "--no-figures", "--overwrite"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "losses.jsonl has 2000 terms, and at most 100 are drawn: no loss curves of this run are shown." in printed
    assert "No losses are recorded" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["RUN", "--out", "page.png"], "ends in .html"),
        (["RUN", "--out", "taken.html"], "exists: give another name, or --overwrite"),
        (["RUN", "RUN/config.yml"], "are the same run"),
        (["nowhere"], "nowhere does not exist: give a run's folder"),
        (["RUN", "--size", "3"], "--size is 3 x 3: use sides from 16"),
        (["RUN", "--seconds", "nan"], "--seconds is nan: give more than 0"),
        (["RUN", "--seconds", "9999"], "at most 62.5 at 16 fps"),
        (["RUN", "--fps", "0"], "--fps is 0: use a number"),
        (["RUN", "--size", "4096"], "fewer runs"),
        (["RUN", "--data", "gone"], "are no longer at gone: say with --data"),
        (["empty"], "does not exist: give a run's folder"),
        (["unfinished"], "holds no checkpoint"),
    ],
)
def test_what_cannot_be_compared(
    runs: list[Path],
    options: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    Path("taken.html").write_text("theirs")
    Path("empty").mkdir()
    shutil.copytree(runs[0], "unfinished", ignore=lambda folder, names: [n for n in names if n.endswith(".ckpt")])
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as end:
        main(["compare", *(word.replace("RUN", str(runs[0])) for word in options)])
    assert end.value.code in (1, 2)
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("error: ")
    assert words in said[-1]
    assert sorted(tmp_path.rglob("*")) == before
    assert Path("taken.html").read_text() == "theirs"
