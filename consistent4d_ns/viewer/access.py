"""Who may talk to the viewer, whose scripts it runs, and what happens to messages that are none.

viser serves a page and listens for its messages, and asks nobody where they come from: a page of another site that is
open in the same browser could steer a training, and a path with `..` reads any file of the user. Its server offers no
hook for either, so each new connection is changed before it reads anything (seen in viser 0.2.7 with the
`websockets.legacy` server).
"""

from __future__ import annotations

import http
import ipaddress
import logging
import traceback
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from consistent4d_ns.messages import warn

if TYPE_CHECKING:
    import viser

LOGGER = "websockets.server"
"""Logger of the library that serves the viewer."""
INVALID = 1007
"""Code with which a connection is closed whose message cannot be read (RFC 6455, section 7.4.1)."""
POLICY = {"Content-Security-Policy": "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob: data:"}
"""Header with which the page runs no scripts of other hosts: viser's own asks Google to count visits."""
FORBIDDEN = b"This viewer answers its own page only.\n"
TOLD = 200
"""Characters of a fault that are shown."""

Answers = Callable[[str, Any], Awaitable[Any]]
"""What answers a request, by its path and headers; None where it is left to the library."""


def is_local(host: str) -> bool:
    """Whether a host, as in an address, is this machine and nothing else."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def refusal_of(headers: Mapping[str, str], local: bool) -> str | None:
    """Why a request is not answered; None if it is.

    Args:
        headers: Its headers. Programs that are no browsers send no `Origin`.
        local: Whether the viewer listens on this machine only. Then other names of it are refused, too: a site whose
            name was made to point here (DNS rebinding) would otherwise count as the viewer's own page.
    """
    host = _part(f"http://{headers.get('Host', '')}")
    if host is None:
        return "a Host that is none"
    if local and not is_local(host[0]):
        return f"the host {host[0]}"
    origin = headers.get("Origin")
    if origin is not None and _part(origin) != host:
        return f"a page of {origin}"
    return None


def _part(address: str) -> tuple[str, int] | None:
    """Host and port of an address; None if it has none."""
    try:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            return None
        return parts.hostname, parts.port or {"http": 80, "https": 443}[parts.scheme]
    except ValueError:
        return None


def is_served(path: str, root: Path) -> bool:
    """Whether the path of a request names a file below the folder of the page."""
    name = path.partition("?")[0].removeprefix("/") or "index.html"
    try:
        file = (root / name).resolve()
        return file.is_relative_to(root.resolve()) and file.is_file()
    except (OSError, ValueError):
        return False


def guard(server: viser.ViserServer, listens_on: str) -> None:
    """Refuse foreign pages, paths and messages from now on.

    Args:
        server: A server that runs.
        listens_on: The address that it was asked to listen on.
    """
    inner: Any = server._websock_server
    sockets = inner._ws_server
    if not hasattr(sockets, "register"):
        warn("this version of viser has no place at which pages of other sites can be refused: see docs/viewer.md.")
        return
    quieten()
    local, root, message = is_local(listens_on), inner._http_server_root, inner._message_class
    register = sockets.register

    def guarded(connection: Any) -> None:
        connection._process_request = _checked(connection._process_request, root, local)
        connection.recv = _readable(connection, message)
        register(connection)

    sockets.register = guarded


def _checked(serve: Answers, root: Path, local: bool) -> Answers:
    """What answers requests, with the answers that viser does not give."""

    async def answer(path: str, headers: Any) -> Any:
        try:
            refusal = refusal_of(headers, local)
        except Exception:  # Two headers of one name, for which the library raises its own errors.
            refusal = "contradicting headers"
        if refusal is not None:
            _log(f"the viewer does not answer {refusal}")
            return http.HTTPStatus.FORBIDDEN, [("Content-Type", "text/plain")], FORBIDDEN
        if headers.get("Upgrade") != "websocket" and not is_served(path, root):
            return http.HTTPStatus.NOT_FOUND, [], b"404"
        answered = await serve(path, headers)
        return answered and (answered[0], {**dict(answered[1]), **POLICY}, answered[2])

    return answer


def _readable(connection: Any, message: Any) -> Callable[[], Awaitable[bytes]]:
    """`recv` of a connection, which is closed at the first message that is none.

    viser would leave such a connection half open: the threads and buffers of its page would stay for ever.
    """
    receive = connection.recv

    async def checked() -> bytes:
        raw = await receive()
        try:
            if not isinstance(raw, bytes):
                raise TypeError("text")
            message.deserialize(raw)
        except Exception as error:
            _log(f"the viewer closes a connection that sent what is no message ({type(error).__name__})")
            await connection.close(INVALID, "not a message of the viewer")
            return await receive()
        return raw

    return checked


def quieten() -> None:
    """Keep the console readable whatever is sent: each kind of fault is one line, once."""
    from viser.infra import _infra

    logger = logging.getLogger(LOGGER)
    if not any(isinstance(present, Once) for present in logger.filters):
        logger.addFilter(Once())
    _infra.error_print_wrapper = in_one_line


class Once(logging.Filter):
    """Lets each message pass once, without its traceback."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is shown."""
        record.exc_info = record.exc_text = None
        text = record.getMessage()
        new = text not in self._seen and len(self._seen) < TOLD
        self._seen.add(text)
        return new or record.levelno < logging.WARNING


def _log(line: str) -> None:
    logging.getLogger(LOGGER).warning("warning: %s.", line[:TOLD])


def in_one_line(inner: Callable[[], Any]) -> Callable[[], None]:
    """In the place of viser's wrapper of callbacks, which prints a traceback for every message that makes no sense."""

    def wrapped() -> None:
        try:
            inner()
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            where = f"{Path(place.filename).name}:{place.lineno}"
            _log(f"the viewer could not do what a page asked for ({reason}; {where})")

    return wrapped
