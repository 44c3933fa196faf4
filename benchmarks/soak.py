"""Growth of a long training's memory while a page is open.

    python -m benchmarks.soak --minutes 120

Trains `consistent4d-mini` on a toy, without an end, with a page attached whose camera moves and rests by turns (see
`benchmarks.page`; training stands still while it moves). After the steps in which all stages begin, memory, file
descriptors and threads are recorded, and a line is fitted. The learning rate is next to nothing (`STILL`): an object
that went on changing would need more or fewer samples, and so more or less memory, whether or not something leaks.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tyro

from benchmarks.watched_training import Training, training

STILL = ("--optimizers.field.optimizer.lr", "1e-12")
"""Keeps the object, and with it the work of every step, as it is."""


@dataclass
class Options:
    """Options of the benchmark."""

    minutes: float = 120.0
    """Length of the measurement."""
    warmup: int = 1000
    """Training steps before it begins: both image sizes and the first evaluations of each are among them."""
    rest: float = 20.0
    """Seconds for which the camera rests after each round of 10 seconds."""
    interval: float = 10.0
    """Seconds between two looks."""
    out: Path | None = None
    """JSON file for all that was recorded so far."""


@dataclass(frozen=True)
class Look:
    """What the training holds at a moment."""

    seconds: float
    steps: int
    megabytes: float
    descriptors: int
    threads: int


def look(watched: Training, begin: float) -> Look:
    """What it holds now; `begin` is the time from which seconds count."""
    held = watched.memory(), watched.descriptors(), watched.threads()
    return Look(time.monotonic() - begin, watched.steps(), *held)


def growth(looks: list[Look]) -> float:
    """Percent of memory per hour, by the slope of a fitted line."""
    hours = np.array([look.seconds for look in looks]) / 3600.0
    slope, start = np.polyfit(hours, [look.megabytes for look in looks], 1)
    return float(100.0 * slope / start)


@contextmanager
def open_page(watched: Training, rest: float) -> Iterator[None]:
    """A page that is open until the block ends."""
    options = [str(watched.port), "--moving", "--rest", str(rest)]
    page = subprocess.Popen([sys.executable, "-m", "benchmarks.page", *options], stdout=subprocess.DEVNULL)
    try:
        yield
        if page.poll() is not None:
            raise SystemExit("the page has ended")
    finally:
        page.terminate()
        page.wait()


def pause(watched: Training, seconds: float) -> None:
    """Wait while the training goes on."""
    time.sleep(seconds)
    if watched.process.poll() is not None:
        raise SystemExit("the training has ended")


def main(options: Options) -> None:
    """Train, look, fit."""
    with training(options=STILL) as watched, open_page(watched, options.rest):
        while watched.steps() < options.warmup:
            pause(watched, options.interval)
        begin, looks = time.monotonic(), []
        while time.monotonic() - begin < 60.0 * options.minutes:
            looks.append(look(watched, begin))
            if options.out:
                options.out.write_text(json.dumps([asdict(look) for look in looks]))
            pause(watched, options.interval)
    first, last = looks[0], looks[-1]
    print(f"{last.seconds / 60:.0f} minutes, {last.steps - first.steps} steps, {len(looks)} looks")
    print(f"memory {first.megabytes:.0f} -> {last.megabytes:.0f} MB, growth {growth(looks):+.2f} % per hour")
    print(f"descriptors {first.descriptors} -> {last.descriptors}, threads {first.threads} -> {last.threads}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
