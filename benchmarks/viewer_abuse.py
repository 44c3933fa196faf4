"""What a viewer that is abused costs a training: memory, file descriptors, threads and steps per second.

    python -m benchmarks.viewer_abuse

Trains `consistent4d-mini` on a toy with its viewer open. Connections are opened and dropped, clients read nothing, and
garbage, malformed messages, foreign pages and paths to other files are sent. After each, the training has to go on, and
what it holds is measured when all clients are gone.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

import tyro
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from benchmarks.page import camera
from benchmarks.watched_training import Training, training

MALFORMED = (b"", b"\xc1", b"\x90", b"\x81\xa4type\xa7Nothing", b"\xff" * 1000, b"\x91" * 5000, os.urandom(100_000))
HEADER = "| abuse | steps per second | MB | descriptors | threads | lines on the console |\n|---|---|---|---|---|---|"


@dataclass
class Options:
    """Options of the benchmark."""

    connections: int = 100
    """How often each is done."""
    settle: float = 5.0
    """Seconds after which what is left is measured."""
    seconds: float = 10.0
    """For which slow clients read nothing."""


def opened(port: int, origin: str | None = None) -> ClientConnection:
    """A connection to the viewer, as a page has it."""
    return connect(f"ws://127.0.0.1:{port}", origin=origin, max_size=None, proxy=None)  # type: ignore[arg-type]


def raw(port: int, content: bytes) -> None:
    """Send bytes, and hang up."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection, contextlib.suppress(OSError):
        connection.sendall(content)
        # Reset instead of closing in an orderly way.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def dropped(port: int, options: Options) -> None:
    """Pages that are gone without a word, at once or after they asked for a picture."""
    for index in range(options.connections):
        connection = opened(port)
        if index % 2:
            connection.send(camera(float(index)))
        connection.socket.shutdown(socket.SHUT_RDWR)


def slow(port: int, options: Options) -> None:
    """Pages that ask for pictures and read none of them."""
    connections = [opened(port) for _ in range(max(1, options.connections // 10))]
    end, angle = time.monotonic() + options.seconds, 0.0
    while time.monotonic() < end:
        angle += 0.1
        for connection in connections:
            with contextlib.suppress(WebSocketException, OSError):
                connection.send(camera(angle))
        time.sleep(0.2)
    for connection in connections:
        connection.socket.close()


def garbage(port: int, options: Options) -> None:
    """Bytes that are no request, and requests that end in the middle."""
    generator = random.Random(0)
    for index in range(options.connections):
        raw(port, generator.randbytes(2000) if index % 2 else b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: webso")


def malformed(port: int, options: Options) -> None:
    """Messages that are none."""
    for index in range(options.connections):
        with contextlib.suppress(WebSocketException, OSError), opened(port) as connection:
            connection.send(MALFORMED[index % len(MALFORMED)])


def foreign(port: int, options: Options) -> None:
    """Pages of other sites; fails if one is answered."""
    for _ in range(options.connections):
        try:
            opened(port, "http://evil.example").close()
        except WebSocketException:
            continue
        raise SystemExit("a foreign page was answered")


def paths(port: int, options: Options) -> None:
    """Paths to files of the user; fails if one is answered."""
    for _ in range(options.connections):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(
                b"GET /../../../../../../../../../../../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n"
            )
            if b" 404 " not in connection.recv(200):
                raise SystemExit("a file outside of the page was served")


ABUSES: tuple[tuple[str, Callable[[int, Options], None]], ...] = (
    ("opened and dropped", dropped),
    ("slow clients", slow),
    ("garbage", garbage),
    ("malformed messages", malformed),
    ("foreign pages", foreign),
    ("paths to other files", paths),
    ("opened and dropped again", dropped),
)


def row(name: str, watched: Training, begin: tuple[float, int]) -> str:
    """A row of the table: what the training did since, and holds."""
    moment, step = begin
    rate = (watched.steps() - step) / (time.monotonic() - moment)
    held = f"{watched.memory():.0f} | {watched.descriptors()} | {watched.threads()}"
    return f"| {name} | {rate:.1f} | {held} | {watched.console()} |"


def main(options: Options) -> None:
    """Train, abuse the viewer, print a row after each abuse."""
    with training() as watched:
        print(HEADER)
        begin = time.monotonic(), watched.steps()
        time.sleep(2 * options.settle)
        print(row("none", watched, begin), flush=True)
        for name, abuse in ABUSES:
            begin = time.monotonic(), watched.steps()
            abuse(watched.port, options)
            time.sleep(options.settle)
            if not watched.is_alive():
                raise SystemExit(f"{name} ended the training")
            print(row(name, watched, begin), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
