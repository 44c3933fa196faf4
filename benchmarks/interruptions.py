"""Trainings that are killed again and again, compared with one that is not.

    python -m benchmarks.interruptions --kills 30

A short training with the bundled prior, which goes through every stage of a training, is killed (SIGKILL) at random
moments and resumed with `--resume True`, until it is done. Of three kills, one comes soon after the start of the
process, one after some checkpoints, and one while the checkpoint that then follows is written. When a training is done
before the wanted number of kills, another one begins. Every training is compared with one that nobody killed: all
losses of all steps, and everything in the last checkpoint, bit by bit. On a GPU, where sums are not taken in the same
order each time unless `--deterministic` asks for it, a second training that nobody kills comes first: its row has no
kills.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import Tensor

from consistent4d_ns.errors import InputError, show_input_errors_in_one_line
from consistent4d_ns.files.checkpoints import FOLDER, list_checkpoints, read_checkpoint
from consistent4d_ns.record.history import last_step, read_history
from consistent4d_ns.toy import write_sequence

METHOD = "consistent4d-mini"
"""The preset."""
NAME = "killed"
"""Name of the experiment."""
STAGES = {
    "pipeline.targets.imagine.steps": "12",
    "pipeline.targets.imagine.strengths": "1.0 0.6",
    "pipeline.targets.imagine.views": "8",
    "pipeline.targets.imagine.sampling-steps": "2",
    "pipeline.targets.hold.begin-step": "48",
    "pipeline.targets.hold.steps": "48",
    "pipeline.targets.hold.views": "8",
    "pipeline.datamanager.plan.stage-steps": "0 36",
}
"""Two rounds of imagined views, distillation at 32 and at 64 pixels, held views, and distillation again."""
STEPS = 112
"""Steps of a training."""
PATIENCE = 600.0
"""Seconds after which a training counts as hanging."""
POLL = 0.0005
"""Seconds between two looks for a checkpoint that is being written."""


@dataclass
class Options:
    """Options of the benchmark."""

    kills: int = 30
    """Number of kills."""
    window: float = 6.0
    """The first kind of kill comes within so many seconds of the start of its process."""
    saves: int = 6
    """The other kinds come after fewer than so many checkpoints of their process."""
    pause: float = 1.0
    """The second kind comes within so many seconds of a checkpoint."""
    steps: int = STEPS
    """Steps of a training."""
    steps_per_save: int = 4
    """Steps between two checkpoints."""
    seed: int = 0
    """Decides the moments."""
    device: Literal["cpu", "cuda"] = "cpu"
    """On a GPU sums are not taken in the same order each time, so that losses are equal up to rounding only."""
    deterministic: bool = False
    """Train with `--deterministic True`."""
    settings: tuple[str, ...] = ()
    """Further options of the trainings, PATH=VALUE."""
    out: Path | None = None
    """JSON file for the results."""


@dataclass
class Kill:
    """One kill."""

    seconds: float
    """Time since the start of the process."""
    reached: int | None
    """Latest step in the history; None before the first."""
    left: int | None
    """Step of the checkpoint that was left; None: there was none yet."""
    writing: bool
    """Whether half a checkpoint was left."""


@dataclass
class Result:
    """One training that was killed, compared with the one that was not."""

    kills: list[Kill] = field(default_factory=list)
    """What was done to it."""
    steps: int = 0
    """Steps in its history."""
    differing: int = 0
    """Of those, how many have another loss than without kills."""
    largest: float = 0.0
    """Largest relative difference of a loss in the last step."""
    unequal: tuple[str, ...] = ()
    """What differs in the last checkpoint."""


def options_of(data: Path, out: Path, options: Options) -> list[str]:
    """The command line of a training."""
    values = {
        "data": str(data),
        "output-dir": str(out),
        "experiment-name": NAME,
        "vis": "tensorboard",
        "machine.device-type": options.device,
        "deterministic": str(options.deterministic),
        "max-num-iterations": str(options.steps),
        "steps-per-save": str(options.steps_per_save),
        "steps-per-eval-image": "0",
        "resume": "True",
    }
    values |= STAGES | dict(setting.split("=", 1) for setting in options.settings)
    return [METHOD, *(word for name, value in values.items() for word in (f"--{name}", *value.split()))]


def start(arguments: list[str], log: Path) -> BaseProcess:
    """Start `ns-train` in a process of its own, forked from one that has imported it but computed nothing.

    With a GPU it starts anew: CUDA cannot be used in a process that is forked after an import has asked for it.
    """
    if "cuda" in arguments:
        process = multiprocessing.get_context("spawn").Process(target=_train, args=(arguments, log))
    else:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["nerfstudio.scripts.train"])
        process = context.Process(target=_train, args=(arguments, log))
    process.start()
    return process


def _train(arguments: list[str], log: Path) -> None:
    with log.open("ab") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    torch.set_num_threads(1)
    sys.argv = ["ns-train", *arguments]
    from nerfstudio.scripts.train import entrypoint

    entrypoint()


def run_of(out: Path) -> Path | None:
    """The run's folder, once there is one that has a configuration."""
    configs = (out / NAME / METHOD).glob("*/config.yml")
    return max((file.parent for file in configs), key=lambda run: run.stat().st_mtime, default=None)


def half_written(out: Path) -> bool:
    """Whether there is a checkpoint that has not got its name yet."""
    run = run_of(out)
    return run is not None and any(run.glob(f".{FOLDER}-*"))


def saved(out: Path) -> int:
    """Step of the newest checkpoint; -1 where there is none."""
    run = run_of(out)
    return max(list_checkpoints(run / FOLDER), default=-1) if run else -1


def wait_for_saves(process: BaseProcess, out: Path, number: int) -> None:
    """Wait until a training has saved some checkpoints, or ended."""
    latest = saved(out)
    while number > 0 and process.is_alive():
        time.sleep(POLL)
        newest = saved(out)
        number, latest = number - (newest != latest), newest


def kill_once(process: BaseProcess, out: Path, options: Options, kind: int, draws: random.Random) -> Kill | None:
    """Kill a training at a random moment; None if it ended before.

    Args:
        process: The training.
        out: Where its run is.
        options: How long is waited.
        kind: 0: soon after the start; 1: after some checkpoints; 2: while the checkpoint that follows them is written.
        draws: The moments.
    """
    begin = time.monotonic()
    if kind == 0:
        process.join(draws.uniform(0.0, options.window))
    else:
        wait_for_saves(process, out, draws.randrange(options.saves))
    if kind == 1:
        process.join(draws.uniform(0.0, options.pause))
    while kind == 2 and process.is_alive() and not half_written(out):
        time.sleep(POLL)
    if not process.is_alive():
        return None
    process.kill()
    process.join()
    run = run_of(out)
    checkpoints = list_checkpoints(run / FOLDER) if run else {}
    reached = last_step(run / "losses.jsonl") if run else None
    return Kill(time.monotonic() - begin, reached, max(checkpoints, default=None), half_written(out))


def finish(process: BaseProcess, log: Path) -> None:
    """Wait for a training.

    Raises:
        InputError: it hangs, or has failed.
    """
    process.join(PATIENCE)
    if process.exitcode != 0:
        process.kill()
        lines = log.read_text(errors="replace").splitlines()
        raise InputError(f"a training ended with {process.exitcode} ({' '.join(lines[-3:])[:300]}): see {log}.")


def interrupted(data: Path, out: Path, options: Options, wanted: int, draws: random.Random) -> Result:
    """Train, being killed until the training is done or `wanted` kills are done.

    Raises:
        InputError: it does not go on after a kill.
    """
    out.mkdir()
    arguments, log, result = options_of(data, out, options), out / "log.txt", Result()
    while len(result.kills) < wanted:
        process = start(arguments, log)
        kill = kill_once(process, out, options, len(result.kills) % 3, draws)
        if kill is None:
            finish(process, log)
            return result
        result.kills.append(kill)
    finish(start(arguments, log), log)
    return result


def compare(result: Result, run: Path, whole: Path) -> None:
    """Fill in how a run that was killed differs from one that was not."""
    rows, expected = (read_history(folder / "losses.jsonl") for folder in (run, whole))
    result.steps = len(rows)
    result.differing = abs(len(rows) - len(expected)) + sum(a != b for a, b in zip(rows, expected, strict=False))
    if not rows:
        raise InputError(f"{run} holds no losses: see {run.parents[2] / 'log.txt'}.")
    last = ((rows[-1].get(name) or 0.0, value or 0.0) for name, value in expected[-1].items())
    result.largest = max(abs(a - b) / max(abs(b), 1e-12) for a, b in last)
    states = [dict(leaves(read_checkpoint(max(list_checkpoints(each / FOLDER).values())))) for each in (run, whole)]
    names = sorted(states[0].keys() | states[1].keys())
    result.unequal = tuple(name for name in names if not _equal(states[0].get(name), states[1].get(name)))


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """All values in nested dictionaries and lists, with their places."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else None
    if parts is None:
        yield name, value
    for key, part in parts or ():
        yield from leaves(part, f"{name}.{key}" if name else str(key))


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.equal(first, second)
    return type(first) is type(second) and first == second


def measure(folder: Path, options: Options) -> list[Result]:
    """Train without kills, then with them.

    Raises:
        InputError: a training does not end as it should.
    """
    data, whole = folder / "toy", folder / "whole"
    write_sequence(data, size=64, frames=12)
    interrupted(data, whole, options, 0, random.Random())
    draws, results, done = random.Random(options.seed), [], 0
    repeats = options.device == "cuda"
    while done < options.kills:
        wanted = 0 if repeats and not results else options.kills - done
        out = folder / f"killed-{len(results)}"
        results.append(interrupted(data, out, options, wanted, draws))
        run, expected = run_of(out), run_of(whole)
        assert run is not None
        assert expected is not None
        compare(results[-1], run, expected)
        done += len(results[-1].kills)
        print(line(results[-1], options), flush=True)
    return results


def line(result: Result, options: Options) -> str:
    """One training as a row of the table."""
    again = [k.reached - (-1 if k.left is None else k.left) for k in result.kills if k.reached is not None]
    cells = (
        len(result.kills),
        sum(kill.left is None for kill in result.kills),
        sum(kill.writing for kill in result.kills),
        max(again, default=0),
        f"{result.steps} of {options.steps}",
        result.differing,
        f"{result.largest:.1e}",
        len(result.unequal),
    )
    return f"| {' | '.join(map(str, cells))} |"


def main(options: Options) -> None:
    """Run the benchmark and print a table in Markdown."""
    show_input_errors_in_one_line()
    if options.out is not None and options.out.exists():
        raise InputError(f"--out {options.out} exists; name a new file.")
    heads = (
        "kills",
        "before the first checkpoint",
        "while a checkpoint was written",
        "most steps done again",
        "steps",
        "steps with other losses",
        "relative difference at the end",
        "differences in the last checkpoint",
    )
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}", flush=True)
    with tempfile.TemporaryDirectory(prefix="interruptions-") as folder:
        results = measure(Path(folder), options)
    total = sum(len(result.kills) for result in results)
    equal = sum(not (result.differing or result.unequal) for result in results)
    print(f"{total} kills; {equal} of {len(results)} trainings equal the one that was not killed, bit by bit.")
    if options.out is not None:
        options.out.write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
