"""Forked processes report what they print and how they end: otherwise the tests that use them could not fail."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import run_command
from tests.support.forked import call_forked, do_nothing
from tests.support.interpreted import needs_triton, run_interpreted

pytestmark = pytest.mark.slow


def speak(code: int) -> None:
    print("result")
    os.write(2, b"complaint")  # As libraries in C do.
    sys.exit(code)


def disagree() -> None:
    raise AssertionError("kernels disagree")


def test_output_and_exit_code() -> None:
    done = call_forked(speak, 3)
    assert (done.returncode, done.stdout, done.stderr) == (3, "result\n", "complaint")
    assert call_forked(speak, 0).returncode == 0


@needs_triton
def test_a_failing_check_fails() -> None:
    with pytest.raises(AssertionError, match="kernels disagree"):
        run_interpreted(disagree)


def test_a_command_has_its_own_folder_and_environment(tmp_path: Path) -> None:
    folder, environment = Path.cwd(), dict(os.environ)
    done = run_command("consistent4d", "camera-path", "orbit", "a.json", cwd=tmp_path, env=environment | {"A": "b"})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.json").exists()
    assert (Path.cwd(), dict(os.environ)) == (folder, environment)
    assert run_command("consistent4d", "no-such-command", cwd=tmp_path).returncode != 0


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs alarm signals")
def test_what_is_called_ends_where_the_test_is_interrupted() -> None:
    """Otherwise pytest would wait for it at its end."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    call_forked(do_nothing)  # The server has started.
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(KeyboardInterrupt):
            call_forked(time.sleep, 60)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not multiprocessing.active_children()
