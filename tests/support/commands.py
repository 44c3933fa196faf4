"""Console commands in forked processes.

A command still has a process, an environment, a folder and output streams of its own, and the script that the
installation wrote is what runs. What differs from a start by hand is only when the libraries are imported; tests about
imports, or about warnings that imports print, start their commands with `subprocess`.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import IO, TextIO
from unittest import mock

import torch

from tests.support.forked import call_forked, start_server


def executable(command: str) -> Path:
    """A console command of this Python installation."""
    return Path(sys.executable).with_name(command)


def run_command(
    command: str, *options: str, cwd: Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a console command to its end, as `subprocess.run` with `capture_output` does.

    Args:
        command: Its name, such as `ns-train`.
        options: What follows the name.
        cwd: Folder in which it runs.
        env: Environment; that of this process by default.
    """
    return call_forked(become, [str(executable(command)), *options], cwd, dict(os.environ if env is None else env))


def run_module(
    command: Sequence[str], cwd: Path, env: Mapping[str, str], stdout: TextIO, stderr: TextIO
) -> subprocess.CompletedProcess[str]:
    """Stand in for `subprocess.run` where it starts `python -m MODULE OPTIONS`."""
    done = call_forked(become, _module(command), cwd, dict(env))
    stdout.write(done.stdout)
    stderr.write(done.stderr)
    return done


def become(line: list[str], cwd: Path, env: dict[str, str]) -> None:
    """Turn this process into a command: its folder, environment and arguments; a script, or a module by its name."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    torch.set_num_threads(int(env.get("OMP_NUM_THREADS", "1")))
    sys.argv = line
    run = runpy.run_path if Path(line[0]).is_absolute() else partial(runpy.run_module, alter_sys=True)
    try:
        run(line[0], run_name="__main__")
    except (Exception, KeyboardInterrupt) as error:
        # The commands print a user's errors through a hook of their own.
        sys.excepthook(type(error), error, error.__traceback__)
        sys.exit(1)
    finally:
        # A process of multiprocessing ends without these.
        atexit._run_exitfuncs()


class Started:
    """A process of `multiprocessing` with the methods of `subprocess.Popen`."""

    def __init__(self, process: BaseProcess) -> None:
        self._process = process
        process.start()
        self.pid = process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, once it has ended."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The exit code, once it has ended."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for its end."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("module", timeout or 0.0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        assert self.pid is not None
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self._process.kill()


class StartedModule(Started):
    """Stands in for `subprocess.Popen` where it starts `python -m MODULE OPTIONS` in a session of its own.

    If that is the process of a batch's job, the process of a step is a fork of it.
    """

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        stdout: IO[bytes],
        start_new_session: bool,
        **others: object,
    ) -> None:
        assert start_new_session
        super().__init__(_session(_module(command), Path.cwd(), env, stdout.name))


class ForkedModule(Started):
    """Stands in for `subprocess.Popen` where a process without threads starts `python -m MODULE OPTIONS`.

    It has the output and the open files of the process that starts it.
    """

    def __init__(
        self,
        command: Sequence[str],
        cwd: str,
        env: Mapping[str, str],
        preexec_fn: Callable[[], None] | None = None,
        **others: object,
    ) -> None:
        arguments = (_module(command), Path(cwd), dict(env), preexec_fn)
        super().__init__(multiprocessing.get_context("fork").Process(target=_become_fork, args=arguments))


def start_command(command: str, *options: str, cwd: Path, env: Mapping[str, str], output: Path) -> Started:
    """Start a console command in a session of its own.

    Args:
        command: Its name, such as `ns-train`.
        options: What follows the name.
        cwd: Folder in which it runs.
        env: Environment.
        output: File for all that it prints.
    """
    return Started(_session([str(executable(command)), *options], cwd, env, str(output)))


def _session(line: list[str], cwd: Path, env: Mapping[str, str], output: str) -> BaseProcess:
    start_server()
    arguments = (line, cwd, dict(env), output)
    return multiprocessing.get_context("forkserver").Process(target=_become_session, args=arguments)


def _module(command: Sequence[str]) -> list[str]:
    """The name of a module and its options, from the command that starts it."""
    _, option, module, *options = command
    assert option == "-m"
    return [module, *options]


def _become_session(line: list[str], cwd: Path, env: dict[str, str], output: str) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # The server ignores it.
    with Path(output).open("ab") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    with mock.patch("consistent4d_ns.batching.doing.Popen", ForkedModule):
        become(line, cwd, env)


def _become_fork(line: list[str], cwd: Path, env: dict[str, str], first: Callable[[], None] | None) -> None:
    if first is not None:
        first()
    become(line, cwd, env)
