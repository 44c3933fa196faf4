"""Runs a command on a malformed input in a process of its own, whose memory and time have a limit."""

from __future__ import annotations

import json
import os
import shlex
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.malformed.cases import Case
from tests.malformed.limits import BYTES, SECONDS, run_limited
from tests.support.commands import executable
from tests.support.forked import call_forked


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    printed: str
    """Standard output and standard error."""
    seconds: float
    """Of CPU time."""
    peak: int
    """Bytes of memory, with the imported libraries."""
    written: tuple[str, ...]
    """What it left, or changed, in its folder."""

    def faults(self, case: Case) -> list[str]:
        """What is wrong with how it ended."""
        lines = [line for line in self.printed.splitlines() if line.startswith("error: ")]
        checks = {
            f"exit code {self.code}": self.code == 2,
            f"{len(lines)} lines that begin with 'error:'": len(lines) == 1,
            "a traceback": "Traceback" not in self.printed and "Exception ignored" not in self.printed,
            f"no {case.words!r}": any(case.words in line for line in lines),
            f"{self.seconds:.1f} s": self.seconds <= SECONDS,
            f"{self.peak / 2**30:.1f} GiB": self.peak <= BYTES,
            f"{', '.join(self.written[:5])} written": not self.written,
        }
        return [fault for fault, good in checks.items() if not good]


def make_inputs(case: Case, place: Path) -> tuple[list[str], set[str]]:
    """Write the input of a case; its command, and what is in the folder then."""
    if case.make is not None:
        case.make(place)
    return shlex.split(case.line.replace("{place}", str(place))), listing(place)


def run_case(case: Case, place: Path) -> Outcome:
    """Run the command of a case in an empty folder."""
    command, before = make_inputs(case, place)
    usage = place.with_name(f"{place.name}.usage")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    try:
        done = call_forked(run_limited, usage, [str(executable(command[0])), *command[1:]], place, environment)
        seconds, peak = json.loads(usage.read_text())
        code, printed = done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired:
        code, printed, seconds, peak = -1, "", float("inf"), 0
    after = listing(place)
    return Outcome(code, printed, seconds, peak, tuple(sorted(after ^ before)))


def listing(place: Path) -> set[str]:
    """Names and sizes of all that is in a folder."""
    found = set()
    for folder, names, files in os.walk(place):
        for name in (*names, *files):
            status = os.lstat(Path(folder) / name)
            size = status.st_size if stat.S_ISREG(status.st_mode) else ""
            found.add(f"{os.path.relpath(Path(folder) / name, place)} {size}".strip())
    return found
