"""What is known about a job, in one file of its folder: which steps are done, and how far it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from consistent4d_ns.errors import InputError
from consistent4d_ns.files.fingerprints import Fingerprint
from consistent4d_ns.files.json_files import number, read_json
from consistent4d_ns.files.outputs import write_values

RECORD = "job.json"
"""The file in a job's folder."""
State = Literal["waiting", "running", "done", "failed", "stopped"]
"""Of a job: `stopped` was asked to end before it was done. What runs when its machine dies stays `running`."""

MOST = 1e9
"""Largest number of seconds, or of beginnings, that is taken for one: 30 years."""


@dataclass(frozen=True)
class StepRecord:
    """A step that was begun."""

    arguments: tuple[str, ...]
    """What it was done with (see `steps.Step.identity`)."""
    done: bool
    """Whether it is done: its output is complete."""
    seconds: float = 0.0
    """How long it took, from its latest beginning."""
    begun: int = 1
    """How often it was begun."""
    inputs: Fingerprint | None = None
    """The data that it was begun with; None: not known."""


@dataclass(frozen=True)
class Record:
    """A job so far."""

    state: State = "waiting"
    """How it is."""
    step: str = ""
    """The step that runs, or ran last."""
    where: str = ""
    """The machine, and its GPU, that it runs or ran on."""
    reason: str = ""
    """Why it failed."""
    steps: Mapping[str, StepRecord] = field(default_factory=dict)
    """Steps that were begun, by name."""

    @property
    def seconds(self) -> float:
        """What all steps took together."""
        return sum(step.seconds for step in self.steps.values())


def read_record(folder: Path) -> Record | None:
    """What is known about the job in a folder; None if no job has been there.

    Raises:
        InputError: the file is damaged.
    """
    file = folder / RECORD
    if not file.exists():
        return None
    try:
        return _parsed(read_json(file))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(
            f"{file} is damaged ({type(error).__name__}: {error}): remove {folder}, with which this job begins anew."
        ) from error


def write_record(folder: Path, record: Record) -> None:
    """Write it.

    Raises:
        InputError: it cannot be written.
    """
    write_values(folder / RECORD, record)


def _parsed(values: Any) -> Record:
    """The values of a file; raises ValueError, LookupError, TypeError or AttributeError where they make no sense."""
    texts = {name: values[name] for name in ("state", "step", "where", "reason")}
    if values["state"] not in get_args(State) or not all(isinstance(text, str) for text in texts.values()):
        raise ValueError("no state of a job")
    steps = {}
    for name, step in values["steps"].items():
        if not (type(step["done"]) is bool and all(isinstance(word, str) for word in step["arguments"])):
            raise ValueError(f"step {name}")
        seconds, begun = (_within(step[key], key) for key in ("seconds", "begun"))
        inputs = Fingerprint.parsed(step["inputs"]) if "files" in (step.get("inputs") or ()) else None
        steps[name] = StepRecord(tuple(step["arguments"]), step["done"], seconds, int(begun), inputs)
    return Record(**texts, steps=steps)


def _within(value: object, name: str) -> float:
    """A number from 0 to `MOST`; raises ValueError or TypeError where it is none."""
    result = number(value, name)
    if not 0 <= result <= MOST:
        raise ValueError(f"{name} is {result:g}, and not from 0 to {MOST:g}")
    return result
