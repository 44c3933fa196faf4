"""Console commands in forked processes: Nerfstudio, which takes ten seconds to import, is imported once per worker.

A command still has a process, an environment, a folder and output streams of its own, and the script that the
installation wrote is what runs. What differs from a start by hand is only when the libraries are imported; tests about
imports or about warnings that imports print start their commands with `subprocess`.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

LIMIT = 300
"""Seconds after which a command counts as hanging."""

multiprocessing.set_forkserver_preload([f"nerfstudio.scripts.{name}" for name in ("train", "eval", "render")])


def executable(command: str) -> Path:
    """A console command of this Python installation."""
    return Path(sys.executable).with_name(command)


def run_command(
    command: str, *options: str, cwd: Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one of the installation's console commands to its end, as `subprocess.run` with `capture_output` does.

    Args:
        command: Its name, such as `ns-train`.
        options: What follows the name.
        cwd: Folder in which it runs.
        env: Environment; that of this process by default.

    Raises:
        subprocess.TimeoutExpired: After `LIMIT` seconds.
    """
    line = [str(executable(command)), *options]
    with TemporaryDirectory() as folder:
        streams = Path(folder) / "stdout", Path(folder) / "stderr"
        arguments = line, cwd, dict(os.environ if env is None else env), *streams
        process = multiprocessing.get_context("forkserver").Process(target=_become, args=arguments)
        process.start()
        process.join(LIMIT)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(line, LIMIT)
        return subprocess.CompletedProcess(line, process.exitcode, *(stream.read_text() for stream in streams))


def _become(line: list[str], cwd: Path, env: dict[str, str], stdout: Path, stderr: Path) -> None:
    """Turn a forked process into the command: its streams, folder, environment and arguments."""
    for number, stream in ((1, stdout), (2, stderr)):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    torch.set_num_threads(int(env.get("OMP_NUM_THREADS", "1")))
    sys.argv = line
    try:
        runpy.run_path(line[0], run_name="__main__")
    except (Exception, KeyboardInterrupt):
        # The commands print a user's errors through a hook of their own.
        sys.excepthook(*sys.exc_info())
        sys.exit(1)
    finally:
        # A process of multiprocessing ends without these.
        atexit._run_exitfuncs()
