"""Which pages and paths the viewer answers, and that messages which are none leave nothing behind."""

from __future__ import annotations

import http.client
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from socket import create_connection
from typing import Any

import pytest
import viser
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from consistent4d_ns.viewer.access import LOGGER, Once, guard, in_one_line, is_local, is_served, refusal_of

PATIENCE = 20.0


@pytest.fixture(scope="module")
def server() -> Iterator[viser.ViserServer]:
    """A viewer's server without a viewer."""
    served = viser.ViserServer(host="127.0.0.1", port=0, verbose=False)
    guard(served, "127.0.0.1")
    yield served
    served.stop()


def port(server: viser.ViserServer) -> int:
    sockets: Any = server._websock_server._ws_server
    return sockets.sockets[0].getsockname()[1]


def opened(server: viser.ViserServer, origin: str | None = None, host: str = "127.0.0.1") -> ClientConnection:
    socket = create_connection(("127.0.0.1", port(server)))
    return connect(f"ws://{host}", sock=socket, origin=origin)  # type: ignore[arg-type]


def get(server: viser.ViserServer, path: str, **headers: str) -> tuple[int, bytes]:
    answer = answer_to(server, path, **headers)
    return answer.status, answer.read()


def answer_to(server: viser.ViserServer, path: str, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port(server), timeout=PATIENCE)
    connection.putrequest("GET", path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    return connection.getresponse()


def drain(connection: ClientConnection) -> None:
    """Receive until the connection is closed."""
    while True:
        connection.recv(timeout=PATIENCE)


def until(condition, what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("host", "origin", "local", "answered"),
    [
        ("localhost:7007", None, True, True),
        ("127.0.0.1:7007", "http://127.0.0.1:7007", True, True),
        ("[::1]:7007", "http://[::1]:7007", True, True),
        ("localhost:8000", "http://localhost:8000", True, True),  # A forwarded port.
        ("localhost:7007", "http://evil.example", True, False),
        ("localhost:7007", "http://localhost:8888", True, False),
        ("localhost:7007", "null", True, False),
        ("localhost:7007", "", True, False),
        ("evil.example:7007", "http://evil.example:7007", True, False),
        ("evil.example:7007", None, True, False),
        ("localhost.evil.example", None, True, False),
        ("127.0.0.1.evil.example", None, True, False),
        ("", None, True, False),
        ("localhost:99999", None, True, False),
        ("[", None, True, False),
        ("gpu.lab.example:7007", "http://gpu.lab.example:7007", False, True),
        ("gpu.lab.example:7007", "http://evil.example:7007", False, False),
    ],
)
def test_which_pages_are_answered(host: str, origin: str | None, local: bool, answered: bool):
    headers = {"Host": host} if origin is None else {"Host": host, "Origin": origin}
    assert (refusal_of(headers, local) is None) is answered


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "LOCALHOST."])
def test_what_is_this_machine(host: str):
    assert is_local(host)
    assert not is_local(f"{host}.example")


@pytest.mark.parametrize(
    ("path", "served"),
    [
        ("/", True),
        ("/index.html?x=1", True),
        ("/sub/a.js", True),
        ("/../secret", False),
        ("/sub/../../secret", False),
        ("//secret", False),
        ("/sub", False),
        ("/missing", False),
        ("/\0", False),
        ("/link", False),
        (f"/{'x' * 5000}", False),
    ],
)
def test_which_paths_are_answered(tmp_path: Path, path: str, served: bool):
    root = tmp_path / "page"
    (root / "sub").mkdir(parents=True)
    for file in (root / "index.html", root / "sub" / "a.js", tmp_path / "secret"):
        file.write_text("x")
    (root / "link").symlink_to(tmp_path / "secret")
    assert is_served(path, root) is served
    assert not is_served(f"/{tmp_path / 'secret'}", root)


def test_files_of_the_user_are_not_served(server: viser.ViserServer):
    """A live exploit: without the guard, viser 0.2.7 answers with the file."""
    for path in ("/../../../../../../../../../../../../../etc/passwd", "//etc/passwd", "/../../../_version.py"):
        status, content = get(server, path)
        assert (status, content) == (404, b"404")
    assert get(server, "/")[0] == 200


def test_the_page_runs_no_scripts_of_other_hosts(server: viser.ViserServer):
    """viser's own page asks one that counts visits."""
    policy = answer_to(server, "/").getheader("Content-Security-Policy", "")
    assert policy.startswith("script-src 'self' ")
    assert "http" not in policy


def test_a_page_of_another_site_is_refused(server: viser.ViserServer):
    address = f"127.0.0.1:{port(server)}"
    opened(server, f"http://{address}", address).close()
    opened(server).close()  # A program that is no browser.
    for origin, host in (("http://evil.example", address), (f"http://evil.example:{port(server)}", "evil.example")):
        with pytest.raises(InvalidStatus, match="403"):
            opened(server, origin, host)
    assert get(server, "/", Host="evil.example")[0] == 403


@pytest.mark.parametrize(
    "sent", ["text", b"", b"\xc1", b"\x90", b"\x81\xa4type\xa7Nothing", b"\xff" * 1000, b"\x91" * 5000]
)
def test_what_is_no_message_closes_its_connection_alone(server: viser.ViserServer, sent: str | bytes):
    """And no buffer, and with it no thread that renders, stays behind."""
    gone: list[int] = []
    server.on_client_disconnect(lambda client: gone.append(client.client_id))
    with opened(server) as good, opened(server) as bad:
        bad.send(sent)
        with pytest.raises(ConnectionClosed):
            drain(bad)
        assert bad.close_code == 1007
        assert good.close_code is None
    until(lambda: not server._websock_server._client_state_from_id, "a connection is kept")


def test_the_console_has_a_line_and_no_traceback(capsys: pytest.CaptureFixture[str]):
    logger = logging.Logger(LOGGER)
    logger.addFilter(Once())
    logger.addHandler(logging.StreamHandler())
    for _ in range(3):
        try:
            raise ValueError("a\nb")
        except ValueError:
            logger.exception("opening handshake failed")
    assert capsys.readouterr().err == "opening handshake failed\n"


def test_a_message_that_makes_no_sense_is_one_line(caplog: pytest.LogCaptureFixture):
    def fails() -> None:
        raise KeyError("uuid\nnext")

    in_one_line(fails)()
    (record,) = caplog.records
    assert "could not do what a page asked for (KeyError: " in record.getMessage()
    assert "\n" not in record.getMessage()
    assert record.exc_info is None
