"""The page on which a result is reviewed, in a real browser."""

from __future__ import annotations

import http.client
import json
import queue
import socket
import struct
import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from consistent4d_ns.cli.ports import free_port
from consistent4d_ns.errors import InputError
from consistent4d_ns.preparing.cutting import Cut
from consistent4d_ns.preparing.options import PrepareOptions
from consistent4d_ns.preparing.review import review
from consistent4d_ns.preparing.steps import Preparation, prepare
from tests.preparing.clips import discs, needs_matting, over, pictures, with_alpha
from tests.support.commands import executable
from tests.viewer.page import PATIENCE, new_page, started_browser

pytestmark = [pytest.mark.slow, needs_matting]

BLUE = (30, 60, 230)


class Reviewed:
    """A command that shows its page."""

    def __init__(self, folder: Path) -> None:
        """Two discs before a green screen: a large red one and a smaller blue one."""
        self.out = folder / "out"
        self.port = free_port("127.0.0.1", 0)
        green = np.full((96, 128, 3), (20, 230, 30), np.uint8)
        other = over(discs(3, left=100, radius=12, step=1), green, BLUE)
        source = pictures(folder / "clip", over(discs(3, left=34, step=1), other))
        options = ["--key", "#14e61e", "--review", "--port", str(self.port)]
        command = [str(executable("consistent4d")), "prepare", str(source), str(self.out), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        while "Review the result at" not in (line := self.process.stdout.readline()):
            assert line, self.process.stderr and self.process.stderr.read()

    def colour(self) -> np.ndarray:
        """Mean colour of the object that was written."""
        rgba = np.array(Image.open(self.out / "0.png"))
        return rgba[rgba[..., 3] > 250][:, :3].mean(axis=0)


@pytest.fixture
def reviewed(tmp_path: Path) -> Iterator[Reviewed]:
    command = Reviewed(tmp_path)
    yield command
    command.process.kill()
    command.process.communicate()


def test_a_person_chooses_moves_and_accepts(reviewed: Reviewed) -> None:
    with started_browser() as browser:
        page = new_page(browser)
        page.goto(f"http://127.0.0.1:{reviewed.port}/")
        done: Any = "document.getElementById('message').textContent === '' && matte.complete && matte.naturalWidth > 0"
        page.wait_for_function(done)
        first = page.locator("#matte").screenshot()
        page.locator("#frame").fill("2")
        assert page.locator("#frame-value").inner_text() == "0.13 s"
        page.locator("#image").click(position={"x": 9, "y": 9})
        assert "Go to the first frame" in page.locator("#message").inner_text()
        page.locator("#frame").fill("0")
        box: Any = page.locator("#image").bounding_box()
        page.locator("#image").click(position={"x": box["width"] * 100 / 128, "y": box["height"] / 2})
        page.wait_for_function(f"state.version === 1 && {done}")
        assert page.locator("#matte").screenshot() != first
        page.locator("#fill").fill("0.5")
        page.wait_for_function(f"state.version === 2 && {done}")
        page.locator("#image").click(position={"x": 3, "y": 3})
        page.wait_for_function("message.textContent.includes('no object was found')")
        page.get_by_role("button", name="Accept").click()
        page.wait_for_function("message.textContent.startsWith('Accepted')")
    assert reviewed.process.wait(PATIENCE) == 0
    assert np.abs(reviewed.colour() - BLUE).max() < 12
    record = json.loads((reviewed.out / "prepare.json").read_text())
    assert record["options"]["picture"]["fill"] == 0.5
    assert record["options"]["object"]["point"] == pytest.approx([100, 48], abs=1)
    rows = np.flatnonzero((np.array(Image.open(reviewed.out / "0.png"))[..., 3] > 127).any(axis=1))
    side = record["frames"][0]["crop"][2]
    assert (rows[-1] - rows[0] + 1) / side == pytest.approx(0.5, abs=0.06)


def test_other_sites_and_nonsense_are_refused_and_cancelling_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rgba = with_alpha(over(discs(3), np.zeros((96, 128, 3), np.uint8)), discs(3))
    port, ready, ended = free_port("127.0.0.1", 0), threading.Event(), queue.Queue[str]()

    def shown(preparation: Preparation) -> None:
        review(preparation, port, lambda address: ready.set())

    def command() -> None:
        try:
            prepare(pictures(tmp_path / "clip", rgba), tmp_path / "out", PrepareOptions(), False, no_bar, never, shown)
        except InputError as error:
            ended.put(str(error))

    threading.Thread(target=command, daemon=True).start()
    assert ready.wait(PATIENCE)

    def status(method: str, path: str, body: str | None = None, **headers: str) -> int:
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        link.request(method, path, body, headers)
        return link.getresponse().status

    assert status("GET", "/") == status("GET", "/state") == status("GET", "/frame/2.jpg") == 200
    assert status("POST", "/accept", Origin="http://elsewhere.example") == 403
    assert status("GET", "/state", Host="elsewhere.example") == 403
    assert status("GET", "/matte/99.png") == status("GET", "/../../etc/passwd") == 404
    assert status("POST", "/change", "[" * 5000) == status("POST", "/change", "{}") == 422
    assert status("POST", "/change", json.dumps({"fill": 7, "shift-x": 0, "shift-y": 0, "threshold": 0.5})) == 422
    assert status("POST", "/change", json.dumps({"fill": 1e400, "shift-x": 0, "shift-y": 0, "threshold": 0.5})) == 422
    point = {"fill": 0.8, "shift-x": 0, "shift-y": 0, "threshold": 0.5, "point": [float("nan"), 1]}
    assert status("POST", "/change", json.dumps(point)) == 422
    assert status("POST", "/change", json.dumps(point | {"point": None, "fill": 10**400})) == 422
    assert status("GET", f"/frame/{'9' * 5000}.jpg") == 404
    assert status("POST", "/change", **{"Content-Length": "9" * 5000}) == 422
    with socket.create_connection(("127.0.0.1", port)) as impatient:  # Its answer finds nobody.
        impatient.sendall(f"GET / HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        impatient.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert status("POST", "/cancel") == 200
    assert "the review was cancelled, so nothing is written" in ended.get(timeout=PATIENCE)
    assert not (tmp_path / "out").exists()
    assert "Traceback" not in capsys.readouterr().err


def never(cuts: Sequence[Cut]) -> float:
    """No estimate is asked for."""
    raise AssertionError


def no_bar(items: Iterable[Any], label: str, total: int) -> Iterable[Any]:
    """No progress bar."""
    return items
