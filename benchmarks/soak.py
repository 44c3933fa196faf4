"""Growth of a long training's memory while a page is open.

    python -m benchmarks.soak --minutes 120

Trains `consistent4d-mini` on a toy, without an end, with a page attached whose camera moves and rests by turns (see
`benchmarks.page`; training stands still while it moves). After the steps in which all stages begin, memory, file
descriptors and threads are recorded, and a line is fitted. Memory goes up and down with every step and every frame, and
freed memory is returned every two seconds, so each look is ten seconds long and counts with its median. The learning
rate is next to nothing (`STILL`): an object that went on changing would need more or fewer samples, and so more or less
memory, whether or not something leaks.
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
PARTS = 6
"""Parts of the time whose memory is printed."""
GLANCE = 0.2
"""Seconds between two readings of memory within a look."""


@dataclass
class Options:
    """Options of the benchmark."""

    minutes: float = 120.0
    """Length of the measurement."""
    warmup: int = 3000
    """Training steps before it begins: both image sizes and the first evaluations of each are among them, and the page
    has had the viewer start most of the threads it will ever have."""
    rest: float = 20.0
    """Seconds for which the camera rests after each round of 10 seconds."""
    interval: float = 10.0
    """Seconds a look takes; one follows the other."""
    out: Path | None = None
    """JSON file for all that was recorded so far."""


@dataclass(frozen=True)
class Look:
    """What the training holds for some seconds."""

    seconds: float
    """At its end."""
    steps: int
    least: float
    """MB."""
    median: float
    most: float
    descriptors: int
    threads: int


def look(watched: Training, begin: float, interval: float) -> Look:
    """What it holds for `interval` seconds; `begin` is the time from which seconds count."""
    end, held = time.monotonic() + interval, []
    while not held or time.monotonic() < end:
        pause(watched, GLANCE)
        held.append(watched.memory())
    least, median, most = np.percentile(held, (0, 50, 100)).tolist()
    seconds = time.monotonic() - begin
    return Look(seconds, watched.steps(), least, median, most, watched.descriptors(), watched.threads())


def growth(looks: list[Look]) -> tuple[float, float]:
    """Percent of memory per hour, by the slope of a line fitted to the looks' medians, and its standard error."""
    hours, memory = np.array([(look.seconds / 3600.0, look.median) for look in looks]).T
    slope, start = np.polyfit(hours, memory, 1)
    left = memory - (slope * hours + start)
    error = np.sqrt(np.square(left).sum() / max(1, len(looks) - 2) / np.square(hours - hours.mean()).sum())
    return float(100.0 * slope / start), float(100.0 * error / start)


def part(looks: list[Look]) -> str:
    """Lowest, median and highest memory of some looks, in words."""
    low, high = min(look.least for look in looks), max(look.most for look in looks)
    middle, threads = np.median([look.median for look in looks]), max(look.threads for look in looks)
    return f"{low:.0f} / {middle:.0f} / {high:.0f}, up to {threads} threads"


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
            looks.append(look(watched, begin, options.interval))
            if options.out:
                options.out.write_text(json.dumps([asdict(look) for look in looks]))
    report(looks)


def report(looks: list[Look]) -> None:
    """Print what was seen."""
    first, last = looks[0], looks[-1]
    slope, error = growth(looks)
    print(f"{last.seconds / 60:.0f} minutes, {last.steps - first.steps} steps, {len(looks)} looks")
    print(f"memory grows by {slope:+.2f} % per hour, give or take {error:.2f}")
    for number in range(PARTS):
        some = looks[number * len(looks) // PARTS : (number + 1) * len(looks) // PARTS]
        if some:
            print(f"part {number + 1} of {PARTS}: MB at least, median, at most: {part(some)}")
    print(f"descriptors {first.descriptors} -> {last.descriptors}, threads {first.threads} -> {last.threads}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
