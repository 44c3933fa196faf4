"""Jobs of stand-in steps, which take as long as they are told and note every beginning and every end in a file."""

from __future__ import annotations

import sys
from pathlib import Path

from consistent4d_ns.batching.steps import LOG, Step, Work
from consistent4d_ns.cli import batch_job
from consistent4d_ns.sweeping.processes import Task

PROGRAM = """
import os, sys, time
from pathlib import Path
name, folder, seconds, words = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]
def note(what):
    with (folder / "notes.txt").open("a") as file:
        file.write(f"{name} {what}\\n")
note(" ".join(["begins", *words]))
(folder / f"{name}.pid").write_text(str(os.getpid()))
counter = folder / f"{name}.count"
try:
    for count in range(int(counter.read_text()) if counter.exists() else 0, 10):
        counter.write_text(str(count))
        note(f"unit {count}")
        time.sleep(max(0.0, seconds / 10))
    while seconds < 0 and not (folder / "go").exists():
        time.sleep(0.05)
except KeyboardInterrupt:
    sys.exit(130)
(folder / f"{name}.done").write_text("done")
note("ends")
"""
"""Ten units of work, of which those are left out that an earlier process has finished."""
HELD = -1.0
"""In place of a step's seconds: it takes no time, but does not end before there is a file `go` in its job's folder."""


def step(name: str, folder: Path, seconds: float = 0.0, program: str = PROGRAM, feeds: bool = False) -> Step:
    """A step of a job in this folder."""
    arguments = ("-c", program, name, str(folder), str(seconds))
    return Step(name, arguments, f"{name}.done", feeds, ("again",), ("anew",))


def work(folder: Path, *steps: Step, attempts: int = 2) -> Work:
    """A job named as its folder, of these steps."""
    folder.mkdir(parents=True, exist_ok=True)
    return Work(folder.name, str(folder), str(folder), steps, 10, attempts)


def task(job: Work) -> Task:
    """The process that does a job."""
    return Task(job.name, [sys.executable, "-m", batch_job.__name__, job.to_json()], job.place / LOG, append=True)


def notes(job: Work) -> list[str]:
    """What the steps have noted, in order."""
    file = job.place / "notes.txt"
    return file.read_text().splitlines() if file.exists() else []
