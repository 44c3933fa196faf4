"""A page on this machine on which a person looks at the cut-out object, mends it, and accepts it."""

from __future__ import annotations

import io
import json
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any

import numpy as np
from jaxtyping import UInt8

from consistent4d_ns.errors import InputError
from consistent4d_ns.preparing.options import PrepareOptions
from consistent4d_ns.preparing.steps import Preparation

HOST = "127.0.0.1"
"""The page is for this machine alone."""
PAGE = files("consistent4d_ns.preparing") / "review.html"
"""The page itself; it loads nothing from elsewhere."""
LONGEST = 10_000
"""Bytes that a request may have."""
PATIENCE = 20.0
"""Seconds after which a request that does not arrive whole is given up."""


def review(preparation: Preparation, port: int, ready: Callable[[str], object]) -> None:
    """Serve the page until the result is accepted.

    Args:
        preparation: The result, whose options the page may change.
        port: Port to listen on.
        ready: Called with the address once the page can be opened.

    Raises:
        InputError: The review is cancelled.
    """
    desk = Desk(preparation)
    with Server(desk, port) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        ready(f"http://{HOST}:{port}/")
        try:
            while not desk.ended.wait(0.5):  # With a limit, so that Ctrl-C is noticed.
                pass
        finally:
            server.shutdown()
    if not desk.accepted:
        raise InputError("the review was cancelled, so nothing is written: run the command again, or without --review.")


class Desk:
    """What lies before the person who reviews; used by the threads of the server."""

    def __init__(self, preparation: Preparation) -> None:
        self._preparation = preparation
        self._lock = threading.Lock()
        self._version = 0
        self.accepted = False
        self.ended = threading.Event()

    def state(self) -> dict[str, Any]:
        """What the page shows beside pictures."""
        with self._lock:
            return self._state()

    def _state(self) -> dict[str, Any]:
        one = self._preparation
        picture = one.options.picture
        clip = one.seen.clip
        return {
            "version": self._version,
            "source": clip.size[::-1],
            "size": len(one.cuts[0].rgba),
            "network": one.seen.kind == "network",
            "first": one.starts_with_first,
            "fill": picture.fill,
            "shift-x": picture.shift[0],
            "shift-y": picture.shift[1],
            "threshold": one.options.object.threshold,
            "frames": [
                {"seconds": second, "crop": cut.crop} for second, cut in zip(clip.seconds, one.cuts, strict=True)
            ],
        }

    def change(self, wish: dict[str, Any]) -> dict[str, Any]:
        """Take other options.

        Raises:
            InputError: They cannot be used; everything stays as it was.
        """
        with self._lock:
            self._preparation.change(changed(self._preparation.options, wish))
            self._version += 1
            return self._state()

    def end(self, accepted: bool) -> dict[str, Any]:
        """Accept or cancel, once whatever is being computed is done."""
        with self._lock:
            if not self.ended.is_set():
                self.accepted = accepted
            return {"ended": True}

    def frame(self, i: int) -> UInt8[np.ndarray, "h w 3"]:
        """A small picture of a frame."""
        with self._lock:
            return self._preparation.located.images[i]

    def matte(self, i: int) -> UInt8[np.ndarray, "size size 4"]:
        """The object as it will be written."""
        with self._lock:
            return self._preparation.cuts[i].rgba


def changed(options: PrepareOptions, wish: dict[str, Any]) -> PrepareOptions:
    """Options with what was set on the page.

    Raises:
        InputError: A value is no number.
    """
    try:
        shift = (float(wish["shift-x"]), float(wish["shift-y"]))
        picture = replace(options.picture, fill=float(wish["fill"]), shift=shift)
        meant = replace(options.object, threshold=float(wish["threshold"]))
        if wish.get("point") is not None:
            x, y = wish["point"]
            meant = replace(meant, point=(float(x), float(y)), box=None)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"the page sent no usable values ({type(error).__name__}): load it again.") from error
    return replace(options, picture=picture, object=meant)


class Server(ThreadingHTTPServer):
    """Serves the page of one review."""

    daemon_threads = True

    def __init__(self, desk: Desk, port: int) -> None:
        super().__init__((HOST, port), Handler)
        self.desk = desk
        self.hosts = {f"{name}:{port}" for name in (HOST, "localhost")}

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that closes a page before it has the answer is no news; all else is shown."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Answers requests of the page."""

    server: Server  # type: ignore[assignment]
    timeout = PATIENCE

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are no news."""

    def do_GET(self) -> None:
        if not self._is_local():
            return
        path = self.path.partition("?")[0]
        if path == "/":
            self._answer("text/html; charset=utf-8", PAGE.read_bytes())
        elif path == "/state":
            self._json(self.server.desk.state())
        else:
            self._picture(path)

    def do_POST(self) -> None:
        if not self._is_local():
            return
        try:
            self._json(self._act())
        except InputError as error:
            self._json({"error": str(error)}, HTTPStatus.UNPROCESSABLE_ENTITY)
        if self.path in ("/accept", "/cancel"):
            self.server.desk.ended.set()  # After the answer: the server ends then.

    def _act(self) -> dict[str, Any]:
        if self.path in ("/accept", "/cancel"):
            return self.server.desk.end(self.path == "/accept")
        length = whole(self.headers.get("Content-Length", ""))
        if self.path != "/change" or length is None or length > LONGEST:
            raise InputError("this is no request of the page: load it again.")
        try:
            wish = json.loads(self.rfile.read(length))
        except (ValueError, RecursionError):
            wish = None
        if not isinstance(wish, dict):
            raise InputError("the page sent no usable values: load it again.")
        return self.server.desk.change(wish)

    def _picture(self, path: str) -> None:
        kind, _, name = path.strip("/").partition("/")
        number = whole(name.partition(".")[0])
        source = {"frame": self.server.desk.frame, "matte": self.server.desk.matte}.get(kind)
        try:
            if source is None or number is None:
                raise IndexError
            image = source(number)
        except IndexError:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        form = "png" if kind == "matte" else "jpeg"
        self._answer(f"image/{form}", encoded(image, form))

    def _is_local(self) -> bool:
        """Whether the page itself asks, and not a page of another site in the same browser."""
        origin = self.headers.get("Origin")
        local = self.headers.get("Host") in self.server.hosts and (
            origin is None or origin.removeprefix("http://") in self.server.hosts
        )
        if not local:
            self.send_error(HTTPStatus.FORBIDDEN)
        return local

    def _json(self, value: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> None:
        self._answer("application/json", json.dumps(value).encode(), status)

    def _answer(self, kind: str, content: bytes, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)


def whole(text: str) -> int | None:
    """The number that a few digits stand for; None for anything else."""
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else None


def encoded(image: UInt8[np.ndarray, "h w c"], form: str) -> bytes:
    """A picture as a file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, form)
    return file.getvalue()
