"""A headless client of the viewer: sends its camera and logs the frames that it receives.

    python -m benchmarks.page PORT [--moving] [--rest SECONDS]

Prints a line for each frame: seconds of `time.monotonic`, width and height. Speaks viser's protocol from a
separate process, as a browser does, so that it takes no time of the viewer's process. With `--moving` the camera orbits
the object, otherwise it stays where the viewer places it. Nerfstudio stops training while a camera moves; with `--rest`
it stands still for some seconds after each round.
"""

from __future__ import annotations

import io
import math
import time
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np
import tyro
import viser.transforms as vtf
from PIL import Image
from viser._messages import ViewerCameraMessage
from websockets.sync.client import ClientConnection, connect

MOVES_A_SECOND = 30
"""Camera updates per second of a moving camera."""
SECONDS_A_ROUND = 10.0
"""Seconds per orbit of a moving camera."""
DISTANCE = 20.0
"""Distance of the camera from the object, in units of the viewer's scene."""


def camera(angle: float) -> bytes:
    """The camera message of a client with a square window, looking at the object from azimuth `angle` in radians."""
    forward, down = -np.array([math.cos(angle), math.sin(angle), 0.0]), np.array([0.0, 0.0, -1.0])
    rotation = vtf.SO3.from_matrix(np.stack((np.cross(down, forward), down, forward), axis=-1))
    x, y, z = -DISTANCE * forward
    message = ViewerCameraMessage(tuple(rotation.wxyz), (x, y, z), math.radians(50.0), 1.0, (0, 0, 0), (0, 0, 1))
    return msgspec.msgpack.encode(message.as_serializable_dict())


def receive(socket: ClientConnection, seconds: float | None) -> None:
    """Log the frames that arrive within some seconds; None: until the viewer disconnects."""
    end = math.inf if seconds is None else time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        try:
            messages = msgspec.msgpack.decode(socket.recv(None if seconds is None else left, decode=False))
        except TimeoutError:
            return
        for message in messages:
            if message["type"] == "BackgroundImageMessage":
                log_frame(message)


def log_frame(frame: dict[str, Any]) -> None:
    """Print the arrival time and size of a frame."""
    with Image.open(io.BytesIO(frame["rgb_bytes"])) as image:
        print(time.monotonic(), *image.size, flush=True)


@dataclass
class Options:
    """Options of the client."""

    port: Annotated[int, tyro.conf.Positional]
    """Port of the viewer on localhost."""
    moving: bool = False
    """Whether the camera moves."""
    rest: float = 0.0
    """Seconds for which a moving camera stands still after each round."""


def main(options: Options) -> None:
    """Connect and stay connected."""
    with connect(f"ws://127.0.0.1:{options.port}", max_size=None, proxy=None) as socket:
        socket.send(camera(0.0))
        if not options.moving:
            receive(socket, None)
        while True:
            begin = time.monotonic()
            while (seconds := time.monotonic() - begin) < SECONDS_A_ROUND:
                socket.send(camera(2.0 * math.pi * seconds / SECONDS_A_ROUND))
                receive(socket, 1.0 / MOVES_A_SECOND)
            if options.rest:
                receive(socket, options.rest)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
