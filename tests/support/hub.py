"""A stand-in for the Hugging Face hub: a server on this machine with one repository, which can misbehave."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

COMMIT = "c" * 40
"""The repository's only commit."""


@dataclass
class Hub:
    """A repository, and how its server behaves."""

    files: dict[str, bytes]
    """Contents by path; binary files are listed as large ones (LFS)."""
    replaced: dict[str, bytes] = field(default_factory=dict)
    """What is sent in place of a file's contents, while the list still has the true ones."""
    cut: dict[str, int] = field(default_factory=dict)
    """Bytes after which the connection breaks, once for each file."""
    broken: set[str] = field(default_factory=set)
    """Files that are answered with an error."""
    stalls: dict[str, threading.Event] = field(default_factory=dict)
    """Files of which only half is sent until an event is set."""
    stalled: threading.Event = field(default_factory=threading.Event)
    """Is set when that happens."""
    sent: list[tuple[str, int]] = field(default_factory=list)
    """Each download: its path, and the byte that it began with."""
    address: str = ""
    """Address of the server."""

    def entry(self, name: str) -> dict[str, Any]:
        """A file as the hub lists it, with the names of both kinds of lists."""
        content = self.files[name]
        about = {"type": "file", "path": name, "rfilename": name, "size": len(content), "oid": git_name(content)}
        if not name.endswith(".json"):
            digest = hashlib.sha256(content).hexdigest()
            about["lfs"] = {"oid": digest, "sha256": digest, "size": len(content), "pointerSize": 100}
        return about | {"blobId": about["oid"]}

    def etag(self, name: str) -> str:
        """The digest under which the hub's cache keeps a file."""
        about = self.entry(name)
        return about["lfs"]["sha256"] if "lfs" in about else about["oid"]


def git_name(content: bytes) -> str:
    """Git's name of a file with these contents."""
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def files_of(folder: Path) -> dict[str, bytes]:
    """Contents of all files in a folder, by their paths in it."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def served(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Serve a repository under every name, and make this process use the server, and `cache` for what it fetches."""
    from huggingface_hub import constants

    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    use_address(hub.address, cache, monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def use_address(address: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the hub's address and cache, as HF_ENDPOINT and HF_HUB_CACHE do for a new process."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = self.path.partition("?")[0]
        if match := re.fullmatch(r"/[^/]+/[^/]+/resolve/[^/]+/(.+)", path):
            self.send_file(match[1], body)
        elif re.fullmatch(r"/api/models/[^/]+/[^/]+/tree/[^/]+", path):
            self.send_json([self.hub.entry(name) for name in self.hub.files])
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/[^/]+)?", path):
            self.send_json({"id": match[1], "sha": COMMIT, "siblings": [*map(self.hub.entry, self.hub.files)]})
        else:
            self.send_json({})

    def send_json(self, content: Any) -> None:
        text = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(text)

    def send_file(self, name: str, body: bool) -> None:
        hub = self.hub
        if name not in hub.files or (body and name in hub.broken):
            self.send_response(404 if name not in hub.files else 500)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = hub.replaced.get(name, hub.files[name]) if body else hub.files[name]
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        begin = int(start[1]) if start else 0
        self.send_response(206 if begin else 200)
        self.send_header("ETag", f'"{hub.etag(name)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content) - begin))
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if not body:
            return
        hub.sent.append((name, begin))
        end = hub.cut.pop(name, len(content))
        if name in hub.stalls:
            middle = (begin + end) // 2
            self.wfile.write(content[begin:middle])
            hub.stalled.set()
            hub.stalls[name].wait(60)
            begin = middle
        with contextlib.suppress(ConnectionError):  # The client may have gone.
            self.wfile.write(content[begin:end])
        if end < len(content):
            self.wfile.flush()
            self.connection.close()
            self.close_connection = True
