"""One job, done to its end in this process: each step once, and never by two at the same time."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from subprocess import DEVNULL, STDOUT, Popen, TimeoutExpired

from consistent4d_ns.batching.records import Record, State, StepRecord, read_record, write_record
from consistent4d_ns.batching.steps import LOG, Rest, Step, Work, check_unchanged, data_changes, renewed, rest_of
from consistent4d_ns.errors import FAILED, REFUSED, InputError
from consistent4d_ns.files.fingerprints import fingerprint
from consistent4d_ns.files.locks import FileLock
from consistent4d_ns.files.outputs import make_folder
from consistent4d_ns.sweeping.processes import PATIENCE, POLL, failure, interrupt

LOCK = ".lock"
"""File in a job's folder that whoever does the job holds locked, and all processes that it starts."""
WAIT = 1.0
"""Seconds between two looks whether the job is free."""
PR_SET_PDEATHSIG = 1
"""Of Linux's prctl: which signal comes when the parent dies."""
GRACE = PATIENCE - 5.0
"""Seconds that a step has to end itself; fewer than the process of its job has."""

ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"}
"""What steps find in their environment; Python does not look for modules among the user's data (from 3.11 on)."""


def do(work: Work) -> int:
    """Do what is left of a job, once nobody else does it; what is said goes to standard output.

    Returns:
        The exit code: 0 if the job is done, `FAILED` if one of its steps failed.

    Raises:
        InputError: its folder cannot be used, or another batch has done it with other options.
        KeyboardInterrupt: it was asked to end, or whoever began it has died; its step has ended, and can go on.
    """
    make_folder(work.place)
    parent = os.getppid()
    lock = wait_for_lock(work, parent)
    try:
        return Doing(work, lock, parent).all()
    finally:
        lock.release()


def renew(work: Work, record: Record) -> None:
    """Keep the present sizes and times of data that are what they were, so that they are not read again the next time.

    Nothing is written while somebody does the job, and where its folder cannot be written.
    """
    if renewed(work, record) == record:
        return
    with suppress(InputError):
        lock = FileLock(work.place / LOCK, f"{work.name} is being done by another process.")
        try:
            latest = read_record(work.place) if lock.handle is not None else None
            if latest is not None:
                write_record(work.place, renewed(work, latest))
        finally:
            lock.release()


def wait_for_lock(work: Work, parent: int) -> FileLock:
    """The lock of a job.

    Raises:
        KeyboardInterrupt: whoever began this process has died.
    """
    told = False
    while True:
        try:
            return FileLock(work.place / LOCK, f"{work.name} is being done by another process.")
        except InputError as busy:
            if not told:
                say(f"{busy} Waiting for it.")
            told = True
        end_if_orphan(parent)
        time.sleep(WAIT)


def end_if_orphan(parent: int) -> None:
    """Raises: KeyboardInterrupt: the process that began this one has died, as when its node leaves a cluster."""
    if os.getppid() != parent:
        say("Whoever began this job has died: it stops.")
        raise KeyboardInterrupt


class Doing:
    """A job whose lock is held."""

    def __init__(self, work: Work, lock: FileLock, parent: int) -> None:
        """
        Args:
            work: The job.
            lock: Its lock.
            parent: Number of the process that began this one.
        """
        self._work, self._lock, self._parent = work, lock, parent
        self._record = read_record(work.place) or Record()

    def all(self) -> int:
        """Do what is left; returns the exit code of `do`."""
        if not self._work.overwrite:  # Another batch may have done it since this one was planned.
            check_unchanged(self._work, self._record)
        rest = rest_of(self._work, self._record)
        self._note("running", steps=rest.kept, where=here())
        try:
            for step in rest.left:
                reason = self._step(step, rest)
                if reason is not None:
                    self._note("failed", reason=reason)
                    return FAILED
        except KeyboardInterrupt:
            self._note("stopped")
            raise
        except Exception as error:
            self._note("failed", reason=" ".join(str(error).split()) or type(error).__name__)
            raise
        self._note("done")
        return 0

    def _step(self, step: Step, rest: Rest) -> str | None:
        """Do a step, again if it dies; why it failed, if it did."""
        words, reason, inputs = rest.words(step), None, fingerprint(step.files())
        for _ in range(self._work.attempts):
            earlier, began = self._record.steps.get(step.name), time.monotonic()
            count = 1 if earlier is None else earlier.begun + 1
            begun = StepRecord(step.identity(self._work.place), done=False, begun=count, inputs=inputs)
            self._note("running", step=step.name, steps={**self._record.steps, step.name: begun})
            code, reason, interrupted = self._process(step, words)
            seconds = round(time.monotonic() - began, 1)
            if code == 0 and reason is None and (what := data_changes(step, inputs)[0]):
                reason = f"{step.name}: {what} meanwhile: repeat the command with --overwrite, or give another --out."
            ended = dataclasses.replace(begun, done=reason is None, seconds=seconds)
            self._note("running", steps={**self._record.steps, step.name: ended})
            if interrupted is not None:
                raise interrupted
            if code in (0, REFUSED):  # What the user gave is refused a second time, too.
                break
            words = step.again
        return reason

    def _process(self, step: Step, words: tuple[str, ...]) -> tuple[int, str | None, KeyboardInterrupt | None]:
        """Run the process of a step: its exit code, why it failed, and what asked for its end, if it did and was."""
        say(f"== {time.strftime('%Y-%m-%d %H:%M:%S')} {self._work.name}: {step.name} on {here()}")
        log = self._work.place / LOG
        begin = log.stat().st_size if log.exists() else 0
        passed = () if self._lock.handle is None else (self._lock.handle,)
        # Where this process is killed, its step ends, too; until it has ended, the job is locked.
        process = Popen(
            [sys.executable, *step.arguments, *words],
            stdin=DEVNULL,
            stderr=STDOUT,
            cwd=self._work.base,
            env={**os.environ, **ENVIRONMENT},
            pass_fds=passed,
            preexec_fn=end_with_parent if sys.platform == "linux" else None,  # There is no other thread here.
        )
        interrupted = None
        try:
            while process.poll() is None:
                time.sleep(POLL)
                end_if_orphan(self._parent)
        except KeyboardInterrupt as error:
            interrupted = error
        finally:
            end(process)
        output = self._work.place / step.output
        if process.returncode == 0 and not output.exists():
            return FAILED, f"{step.name} has written no {output}", interrupted
        reason = f"{step.name}: {failure(log, process.returncode, begin)}" if process.returncode else None
        return process.returncode, reason, interrupted

    def _note(self, state: State, **changes: object) -> None:
        """Change the record, here and in its file."""
        fresh = {"reason": ""} | changes
        self._record = dataclasses.replace(self._record, state=state, **fresh)  # pyright: ignore[reportArgumentType]
        write_record(self._work.place, self._record)


def end(process: Popen[bytes]) -> None:
    """Let a step end itself as Ctrl-C does, so that trainings save a checkpoint; kill it if it does not."""
    if process.poll() is not None:
        return
    interrupt(process)
    try:
        with suppress(TimeoutExpired):
            process.wait(GRACE)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def heed_interrupts() -> None:
    """Let this process and those that it starts end by SIGINT, also where whoever started it had blocked or ignored it,
    as workers of Ray do, and scripts that start it in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})


def end_with_parent() -> None:
    """Let this process get SIGTERM when the one that started it dies, however that happens; on Linux alone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def here() -> str:
    """This machine, and the GPU that was chosen for this process."""
    device = os.environ.get("CUDA_VISIBLE_DEVICES")
    return f"{socket.gethostname()}, GPU {device}" if device else socket.gethostname()


def say(line: str) -> None:
    """Write a line to the job's log, in order with what its processes write."""
    print(line, flush=True)
