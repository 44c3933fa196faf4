"""`consistent4d view`: what it checks before it loads anything, and how it ends."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from consistent4d_ns import runs
from consistent4d_ns.cli import viewer_server
from consistent4d_ns.cli.main import main
from consistent4d_ns.cli.ports import free_port
from consistent4d_ns.errors import InputError


def test_without_a_port_any_free_one_is_taken() -> None:
    first = free_port("127.0.0.1", None)
    assert free_port("127.0.0.1", first) == first


def test_a_port_or_address_that_cannot_be_listened_on() -> None:
    with pytest.raises(InputError, match=r"cannot listen on 192\.0\.2\.1, port 7999: give another --host or --port"):
        free_port("192.0.2.1", 7999)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"cannot listen on 127\.0\.0\.1, port {port}"):
            free_port("127.0.0.1", port)


@pytest.mark.parametrize("port", ["80000", "-1", "65536"])
def test_a_port_that_does_not_exist_is_refused_before_loading(
    port: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runs, "load_run", lambda *_: pytest.fail("the run was loaded first"))
    with pytest.raises(SystemExit) as end:
        main(["view", "run", "--port", port])
    assert end.value.code == 2
    assert (
        capsys.readouterr().err == f"error: --port is {port}: use a number from 1 to 65535, or 0 for any free port.\n"
    )


def test_ctrl_c_stops_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped: list[bool] = []
    server = SimpleNamespace(get_port=lambda: 7123, stop=lambda: stopped.append(True))
    asked: list[Any] = []

    def open_viewer(*arguments: Any) -> Any:
        asked.extend(arguments)
        return SimpleNamespace(viser_server=server)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "load_run", lambda *_: SimpleNamespace(step=59))
    monkeypatch.setattr(viewer_server, "open_viewer", open_viewer)
    monkeypatch.setattr(threading.Event, "wait", interrupt)
    with pytest.raises(SystemExit) as end:
        main(["view", str(tmp_path)])
    assert end.value.code == 130
    assert stopped == [True]
    assert asked[1:3] == [tmp_path, "127.0.0.1"]
    printed = capsys.readouterr()
    assert printed.out == "step 59: http://127.0.0.1:7123 (Ctrl-C ends)\n"
    assert printed.err == f"Loading {tmp_path} ...\nInterrupted.\n"
