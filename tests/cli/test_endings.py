"""How our commands end: errors that a user can act on, Ctrl-C and signals in one line, others with a traceback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from consistent4d_ns.cli.endings import one_line_endings
from consistent4d_ns.cli.main import main
from consistent4d_ns.errors import DEBUG, ENDING
from tests.test_errors import ENDINGS, render_half

PROGRAM = (sys.executable, "-m", "consistent4d_ns.cli.main")


@pytest.mark.parametrize(("error", "line", "code"), ENDINGS)
def test_our_commands_end_in_one_line(
    error: BaseException, line: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end, one_line_endings():
        raise error
    assert end.value.code == code
    assert capsys.readouterr().err == f"{line}\n"


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize(("error", "line", "code"), ENDINGS)
def test_the_line_is_not_glued_to_a_progress_bar(
    error: BaseException,
    line: str,
    code: int,
    terminal: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    with pytest.raises(SystemExit) as end, one_line_endings():
        render_half(error)
    assert end.value.code == code
    *_, bar, last = capsys.readouterr().err.splitlines()
    assert bar.startswith("Rendering")
    assert last == line


def test_what_is_not_the_user_s_fault_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), one_line_endings():
        _ = 1 / 0
    with pytest.raises(SystemExit) as end, one_line_endings():
        sys.exit(7)
    assert end.value.code == 7


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["--version", "--help", "weights", "toy --help"])
def test_output_that_cannot_be_written_is_one_line(tmp_path: Path, command: str, unbuffered: str) -> None:
    env = os.environ | {"HF_HOME": str(tmp_path), "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        done = subprocess.run([*PROGRAM, *command.split()], env=env, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.stderr.startswith("error: cannot write the output: No space left on device; ")
    assert done.stderr.count("\n") == 1
    assert done.returncode == 1


@pytest.mark.slow
def test_names_that_the_terminal_cannot_show_are_escaped(tmp_path: Path) -> None:
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    for name, shown in ((os.fsencode("blüte"), rb"bl\xfcte"), (b"bl\xfcte", rb"bl\udcfcte")):
        out = os.fsencode(tmp_path) + b"/" + name
        options = [*PROGRAM, "toy", out, "--size", "8", "--frames", "2"]
        done = subprocess.run(options, env=env, capture_output=True)
        assert done.returncode == 0, done.stderr
        assert shown in done.stdout
        assert os.path.isfile(out + b"/meta.json")


@pytest.mark.slow
@pytest.mark.parametrize("number", ENDING)
def test_a_signal_leaves_one_line_and_nothing_half_written(tmp_path: Path, number: signal.Signals) -> None:
    """Sent twice, as `timeout` does."""
    command = [*PROGRAM, "toy", str(tmp_path / "toy"), "--size", "128"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("Rendering"):
                break
        for _ in range(2):
            process.send_signal(number)
        said = process.stderr.read().splitlines()
    assert said[-1] == f"Ended by {number.name}."
    assert process.returncode == 128 + number
    assert list(tmp_path.iterdir()) == []


def test_signals_that_are_ignored_stay_ignored() -> None:
    """As `nohup` does with that of a terminal that is closed."""
    number = ENDING[-1]
    previous = signal.signal(number, signal.SIG_IGN)
    try:
        with one_line_endings():
            os.kill(os.getpid(), number)
    finally:
        signal.signal(number, previous)


@pytest.mark.slow
def test_a_signal_ends_what_a_command_has_started(tmp_path: Path) -> None:
    """pip, which waits for an index that never answers; a pip.py in the current folder is not taken for it."""
    if find_spec("pip") is None:
        pytest.skip("needs pip")
    (tmp_path / "pip.py").write_text("open('taken', 'w')")
    (tmp_path / "temporary").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as index:
        index.settimeout(60)
        env = os.environ | {
            "PIP_INDEX_URL": f"http://127.0.0.1:{index.getsockname()[1]}/simple",
            "PIP_CONFIG_FILE": os.devnull,
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "TMPDIR": str(tmp_path / "temporary"),
        }
        options = {"env": env, "cwd": tmp_path, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen([*PROGRAM, "weights", "rife"], **options) as process:
            connection, _ = index.accept()
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=60)
            connection.settimeout(60)
            while connection.recv(4096):  # what pip asked; then its end
                pass
    assert said.splitlines()[-1] == "Ended by SIGTERM."
    assert process.returncode == 143
    assert list((tmp_path / "temporary").iterdir()) == []
    assert not (tmp_path / "taken").exists()


def test_debugging_shows_where_an_error_comes_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DEBUG, "")
    for options, shown in ([], False), (["--debug"], True):
        with pytest.raises(SystemExit) as end:
            main([*options, "camera-path", "orbit", str(tmp_path / "a.json"), "--frames", "0"])
        printed = capsys.readouterr().err
        assert end.value.code == 2
        assert ("Traceback" in printed) is shown
        assert printed.rstrip().splitlines()[-1].startswith("error: --frames is 0")
