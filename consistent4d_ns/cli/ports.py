"""Which port a viewer can listen on; found out before anything is loaded."""

from __future__ import annotations

import contextlib
import socket

from consistent4d_ns.errors import InputError

DEFAULT_PORT = 7007
"""Nerfstudio's."""
MAX_PORT = 65535


def free_port(host: str, port: int | None) -> int:
    """`port`, if this machine can listen on it; without one the default or any free one.

    Raises:
        InputError: it cannot, or there is no such port.
    """
    if port is not None and not 0 <= port <= MAX_PORT:
        raise InputError(f"--port is {port}: use a number from 1 to {MAX_PORT}, or 0 for any free port.")
    for candidate in (DEFAULT_PORT, 0) if port is None else (port,):
        with contextlib.suppress(OSError), socket.create_server((host, candidate)) as server:
            return server.getsockname()[1]
    raise InputError(f"cannot listen on {host}, port {port or 'any'}: give another --host or --port.")
