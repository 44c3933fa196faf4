"""Forked processes report what they print and how they end: otherwise the tests that use them could not fail."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.support.commands import run_command
from tests.support.forked import call_forked
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
