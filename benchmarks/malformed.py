"""Runs every row of the table of malformed inputs with the real command, and prints time, memory and what was said.

    python -m benchmarks.malformed [WORDS ...]

Each command starts anew, so that times and memory include imports. A row that is not refused in one line with exit
code 2 within the limits is marked; what the same program takes to show its help does not count towards the time.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Annotated

import tyro

from tests.malformed.cases import Case
from tests.malformed.limits import drop_privileges_for_good
from tests.malformed.running import Outcome, listing, make_inputs
from tests.malformed.table import CASES

PATIENCE = 120.0
"""Seconds after which a command counts as hanging."""


def run(case: Case, place: Path) -> Outcome:
    """Run the command of a case in an empty folder."""
    (program, *options), before = make_inputs(case, place)
    command = [str(Path(sys.executable).with_name(program)), *options]
    env = os.environ | {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    log = place.with_name("log")
    code, usage = wait_for(command, place, env, log)
    written = tuple(sorted(listing(place) ^ before))
    printed = log.read_text(errors="replace")
    return Outcome(code, printed, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, written)


def wait_for(command: list[str], place: Path, env: dict[str, str], log: Path) -> tuple[int, resource.struct_rusage]:
    """Run a command to its end, or until patience ends; its exit code, and what it used."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, cwd=place, env=env, stdout=stream, stderr=subprocess.STDOUT, preexec_fn=drop_privileges_for_good
        )
        end = time.monotonic() + PATIENCE
        while not (waited := os.wait4(process.pid, os.WNOHANG))[0]:
            if time.monotonic() > end:
                process.kill()
            time.sleep(0.05)
    return os.waitstatus_to_exitcode(waited[1]), waited[2]


@cache
def seconds_of_help(program: str) -> float:
    """CPU seconds that a program takes to show its help; for Nerfstudio's that is its imports."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        line = [str(Path(sys.executable).with_name(program)), "--help"]
        _, usage = wait_for(line, place, dict(os.environ), place / "log")
    return usage.ru_utime + usage.ru_stime


def main(words: Annotated[tuple[str, ...], tyro.conf.Positional] = ()) -> None:
    """Run all rows, or those whose names hold one of the words; the exit code is 1 where one is not refused."""
    chosen = [case for case in CASES if not words or any(word in case.name for word in words)]
    failed = 0
    print("| input | seconds of CPU | peak MB | said |\n|---|---|---|---|")
    for case in chosen:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            place = Path(folder) / "place"
            place.mkdir()
            outcome = run(case, place)
            for path in (place, *place.rglob("*")):
                if path.is_dir() and not path.is_symlink():
                    path.chmod(0o755)
        faults = replace(outcome, seconds=outcome.seconds - seconds_of_help(case.line.split()[0])).faults(case)
        failed += bool(faults)
        said = next((line for line in outcome.printed.splitlines() if line.startswith("error: ")), "")
        said = f"NOT REFUSED: {', '.join(faults)}" if faults else said[:200]
        print(f"| {case.name} | {outcome.seconds:.1f} | {outcome.peak / 1e6:.0f} | {said} |", flush=True)
    print(f"{len(chosen) - failed} of {len(chosen)} refused")
    sys.exit(failed > 0)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
