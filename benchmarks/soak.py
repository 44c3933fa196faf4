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
PARTS = 6
"""Parts of the time whose memory is printed."""


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


def growth(looks: list[Look]) -> tuple[float, float]:
    """Percent of memory per hour, by the slope of a fitted line, and its standard error.

    Memory goes up and down with every step and every frame of the page, so that a line through few looks says little.
    """
    hours, memory = np.array([(look.seconds / 3600.0, look.megabytes) for look in looks]).T
    slope, start = np.polyfit(hours, memory, 1)
    left = memory - (slope * hours + start)
    error = np.sqrt(np.square(left).sum() / max(1, len(looks) - 2) / np.square(hours - hours.mean()).sum())
    return float(100.0 * slope / start), float(100.0 * error / start)


def part(looks: list[Look]) -> str:
    """Lowest, median and highest memory of some looks, in words."""
    low, middle, high = np.percentile([look.megabytes for look in looks], (0, 50, 100))
    return f"{low:.0f} / {middle:.0f} / {high:.0f}, up to {max(look.threads for look in looks)} threads"


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
