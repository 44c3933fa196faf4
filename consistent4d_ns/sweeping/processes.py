"""Trainings in processes of their own, one at a time in each place: a GPU, or the whole machine."""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, STDOUT, Popen, TimeoutExpired

POLL = 0.3
"""Seconds between two looks at what runs."""
PATIENCE = 30.0
"""Seconds that a training has to end itself after Ctrl-C: its present step, and a checkpoint."""


@dataclass(frozen=True, eq=False)  # Each is a place of its own.
class Place:
    """Where one training at a time can run."""

    name: str
    """What to call it; empty: it need not be told apart."""
    env: Mapping[str, str]
    """What its processes have in their environment beside everything else."""


@dataclass(frozen=True)
class Task:
    """A process to be run."""

    name: str
    """What to call it."""
    command: Sequence[str]
    """Program and arguments."""
    log: Path
    """File for its output."""
    append: bool = False
    """Write after what is in that file, in place of replacing it."""


@dataclass(frozen=True)
class Done:
    """A process that has ended by itself."""

    task: Task
    code: int
    """Its exit code; negative: the number of the signal that ended it."""
    seconds: float
    """How long it took."""


@dataclass(frozen=True)
class Running:
    """A process that has not ended yet."""

    task: Task
    process: Popen[bytes]
    begin: float


def run_all(
    tasks: Sequence[Task], places: Sequence[Place], began: Callable[[Task, Place], object]
) -> Generator[Done | None, None, None]:
    """Run every task, in their order, in whichever place is free; none is stopped by another's failure.

    However this ends, by Ctrl-C as well, no process is left behind.

    Args:
        tasks: What to run.
        places: Where; at least one.
        began: Called when a task begins.

    Yields:
        What has ended; and None now and then, so that the caller can look at what runs.
    """
    waiting, running = deque(tasks), dict[Place, Running]()
    try:
        while waiting or running:
            for place in places:
                if waiting and place not in running:
                    running[place] = start(waiting.popleft(), place)
                    began(running[place].task, place)
            time.sleep(POLL)
            yield None
            for place, one in list(running.items()):
                code = one.process.poll()
                if code is not None:
                    del running[place]
                    yield Done(one.task, code, time.monotonic() - one.begin)
    finally:
        stop([one.process for one in running.values()])


def start(task: Task, place: Place) -> Running:
    """Start a process.

    It is in a group of its own: Ctrl-C in the terminal reaches this program alone, which passes it on once.
    """
    env = {**os.environ, **place.env, "PYTHONUNBUFFERED": "1"}
    with task.log.open("ab" if task.append else "wb") as log:
        process = Popen(
            task.command,
            env=env,
            stdin=DEVNULL,
            stdout=log,
            stderr=STDOUT,
            start_new_session=True,
        )
    return Running(task, process, time.monotonic())


def stop(processes: Sequence[Popen[bytes]]) -> None:
    """End processes as Ctrl-C does, so that trainings save a checkpoint; those that go on, or on Ctrl-C, are killed."""
    try:
        for process in processes:
            if process.poll() is None:
                interrupt(process)
        end = time.monotonic() + PATIENCE
        for process in processes:
            with suppress(TimeoutExpired):
                process.wait(max(0.0, end - time.monotonic()))
    finally:
        for process in processes:
            if process.poll() is None:
                kill(process)
                process.wait()


def interrupt(process: Popen[bytes]) -> None:
    """What Ctrl-C does, where a system can send that to one process; Windows cannot, and ends it at once."""
    if os.name == "posix":
        process.send_signal(signal.SIGINT)
    else:
        process.terminate()


def kill(process: Popen[bytes]) -> None:
    """End a process, where a system has groups of them with whatever it has started."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def failure(log: Path, code: int, begin: int = 0) -> str:
    """Why a process failed, in a line: what it said last, and how it ended.

    Args:
        log: File with its output.
        code: Its exit code; negative: the number of the signal that ended it.
        begin: Byte of the file at which its output begins.
    """
    ending = f"signal {-code}" if code < 0 else f"exit code {code}"
    reason = last_line(log, begin).removeprefix("error: ")[:300].rstrip(".")
    return f"{reason or 'without a word'} ({ending})"


def last_line(log: Path, begin: int = 0) -> str:
    """The last line of a process's output that says something, from a byte on; empty if there is none."""
    with log.open("rb") as file:
        file.seek(begin)
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
