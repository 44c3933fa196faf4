"""Where other programs are found; tests that need one skip with a reason where it is not."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
CHROMIUM = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--enable-unsafe-swiftshader"),
)
HOST = "http://export.test"
"""Never asked: every request is answered from files."""
KINDS = {".html": "text/html", ".js": "text/javascript"}
"""Media types of files by their suffix."""


def node_modules(package: str) -> Path:
    """The folder `node_modules` that holds an npm package, for Node."""
    if shutil.which("node") is None:
        pytest.skip("needs Node (Debian: apt-get install nodejs npm)")
    named = os.environ.get("CONSISTENT4D_NODE_MODULES")
    folders = [Path(named)] if named else [Path(__file__).parent / "node_modules", ROOT / "node_modules"]
    for folder in folders:
        if (folder / package).is_dir():
            return folder.resolve()
    pytest.skip(f"needs the npm package {package}: npm install --prefix tests/export")


def chromium() -> str:
    """A Chromium of the system."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return found
    pytest.skip("needs Chromium (Debian: apt-get install chromium)")


@cache
def _imports_bpy(python: str) -> bool:
    return subprocess.run([python, "-c", "import bpy"], capture_output=True).returncode == 0


def blender_python() -> str:
    """A Python that has Blender as a module."""
    named = os.environ.get("CONSISTENT4D_BLENDER_PYTHON")
    if named and not _imports_bpy(named):
        pytest.fail(f"CONSISTENT4D_BLENDER_PYTHON={named} cannot import bpy")
    if named:
        return named
    if importlib.util.find_spec("bpy"):
        return sys.executable
    pytest.skip("needs Blender: name a Python that imports bpy in CONSISTENT4D_BLENDER_PYTHON")


@contextmanager
def served_page(pages: Mapping[str, Path], modules: Path) -> Iterator[Any]:
    """The page of the path `/` in Chromium, once its scripts say in `window.state` that they are ready.

    Args:
        pages: Files by the path of their request.
        modules: The folder `node_modules` for all other paths.
    """
    sync_playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright").sync_playwright

    def answer(route) -> None:
        path = route.request.url.removeprefix(HOST)
        source = pages[path] if path in pages else modules / path.lstrip("/")
        if not source.is_file():
            return route.fulfill(status=404)
        route.fulfill(body=source.read_bytes(), content_type=KINDS.get(source.suffix, "application/octet-stream"))

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium(), args=list(CHROMIUM))
        page = browser.new_page()
        page.route("**/*", answer)
        page.goto(HOST + "/")
        page.wait_for_function("window.state !== undefined", timeout=120_000)
        assert page.evaluate("window.state") == "ready"
        yield page
        browser.close()
