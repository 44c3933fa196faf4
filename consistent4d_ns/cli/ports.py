"""The port of a viewer, chosen before anything slow is loaded."""

from __future__ import annotations

import contextlib
import socket

from consistent4d_ns.errors import InputError

DEFAULT_PORT = 7007
"""Nerfstudio's default."""
MAX_PORT = 65535


def free_port(host: str, port: int | None) -> int:
    """The port to listen on: `port` or, if that is None, the default port or else any free one.

    Raises:
        InputError: this machine cannot listen on that host and port, or the port number is invalid.
    """
    if port is not None and not 0 <= port <= MAX_PORT:
        raise InputError(f"--port is {port}: use a number from 1 to {MAX_PORT}, or 0 for any free port.")
    for candidate in (DEFAULT_PORT, 0) if port is None else (port,):
        with contextlib.suppress(OSError), socket.create_server((host, candidate)) as server:
            return server.getsockname()[1]
    raise InputError(f"cannot listen on {host}, port {port or 'any'}: give another --host or --port.")
