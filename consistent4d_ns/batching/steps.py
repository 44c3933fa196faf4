"""A job as steps, each a process that completes one output; and which of them are left to do. Imports nothing slow."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from consistent4d_ns.batching.records import Record, StepRecord
from consistent4d_ns.errors import InputError, printable
from consistent4d_ns.files.fingerprints import MISSING, Fingerprint, differing, fingerprint

LONGEST_TOLD = 80
"""Characters of a name or a value that are shown in a message."""
LOG = "log.txt"
"""File in a job's folder with all that its processes said."""
MOST_CHANGES = 3
"""Of what a step was begun with otherwise, how much is named."""


Reads = Literal["all", "frames", "footage", "views"]
"""What of a folder is read: all files, or those that `counting.counted` takes for frames."""


@dataclass(frozen=True)
class Input:
    """Data of the user that a step reads."""

    path: str
    """A file, or a folder whose files are read; absolute."""
    reads: Reads = "all"
    """What of a folder is read."""


@dataclass(frozen=True)
class Step:
    """A process that completes one output."""

    name: str
    """What to call it."""
    arguments: tuple[str, ...]
    """What follows the name of the Python interpreter."""
    output: str
    """What it writes, relative to the job's folder: there either whole or not at all, or by a run that can go on."""
    feeds: bool = False
    """Whether all later steps are made of its output."""
    again: tuple[str, ...] = ()
    """Further arguments where it was begun before, with the same arguments, and not completed."""
    anew: tuple[str, ...] = ()
    """Further arguments where its output is to be replaced."""
    inputs: tuple[Input, ...] = ()
    """Data of the user that it reads."""
    kinds: tuple[str, ...] = ()
    """How the names of files end that it reads in folders."""

    def files(self) -> dict[str, Path]:
        """The files that it reads, by names in which the folders that they lie in are numbers."""
        found = {}
        for number, path in enumerate(Path(one.path) for one in self.inputs):
            if not path.is_dir():
                found[f"{number}/"] = path
                continue
            with suppress(OSError):  # The step itself says that the folder cannot be read.
                names = sorted(entry.name for entry in path.iterdir() if entry.name.lower().endswith(self.kinds))
                found |= {f"{number}/{name}": path / name for name in names if not name.startswith(".")}
        return found

    def identity(self, folder: Path) -> tuple[str, ...]:
        """What it is done with: its arguments, whichever folder the job is in."""
        return tuple(_relative(_relative(word, folder, "."), folder.parent, "..") for word in self.arguments)


def _relative(word: str, folder: Path, name: str) -> str:
    """An argument with `name` in place of a folder, wherever the folder's whole name stands in it."""
    return re.sub(rf"{re.escape(str(folder))}(?![^/\"'\s,])", lambda _: name, word)


@dataclass(frozen=True)
class Work:
    """A job that can be handed to a process, on this machine or on another one; plain values only."""

    name: str
    """The job's name."""
    folder: str
    """Folder of all that it writes; an absolute path, the same on all machines."""
    base: str
    """Folder in which its processes run, so that relative paths in options begin there; likewise."""
    steps: tuple[Step, ...]
    """What there is to do, in order."""
    total: int = 0
    """Training steps."""
    attempts: int = 2
    """How often a step is tried that dies."""
    overwrite: bool = False
    """Whether steps that were done with other arguments are done again."""

    @property
    def place(self) -> Path:
        """Its folder."""
        return Path(self.folder)

    def to_json(self) -> str:
        """All of it as text."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Work:
        """The job that `to_json` wrote."""
        values = json.loads(text)
        words = ("arguments", "again", "anew", "kinds")
        for step in values["steps"]:
            step |= {name: tuple(step[name]) for name in words}
            step["inputs"] = tuple(Input(**one) for one in step["inputs"])
        steps = tuple(Step(**step) for step in values["steps"])
        return cls(**{**values, "steps": steps})


@dataclass(frozen=True)
class Rest:
    """What is left of a job."""

    left: tuple[Step, ...]
    """Steps that are still to be done, in order."""
    kept: dict[str, StepRecord]
    """What stays valid of those that were begun: they are done, or can go on."""

    def words(self, step: Step) -> tuple[str, ...]:
        """The further arguments of a step that is to be done."""
        earlier = self.kept.get(step.name)
        return step.anew if earlier is None or earlier.done else step.again


def rest_of(work: Work, record: Record) -> Rest:
    """What is left of a job.

    A step is left whose output is not complete, or was made with other arguments or of other data, and so is what is
    made of its output.
    """
    left, kept, remade = list[Step](), dict[str, StepRecord](), False
    for step in work.steps:
        earlier = None if remade else record.steps.get(step.name)
        if earlier is not None and not difference(step, earlier, work.place):
            kept[step.name] = earlier
            if earlier.done and (work.place / step.output).exists():
                continue
        left.append(step)
        remade = remade or step.feeds
    return Rest(tuple(left), kept)


def difference(step: Step, earlier: StepRecord, folder: Path) -> str:
    """What else a step was begun with than it would be now, in words; empty where there is no difference."""
    if changes := _changes(earlier.arguments, step.identity(folder)):
        return f"done with other options or data ({changes})"
    if earlier.inputs is not None and (what := data_changes(step, earlier.inputs)[0]):
        return f"done before {what}"
    return ""


def data_changes(step: Step, earlier: Fingerprint) -> tuple[str, Fingerprint]:
    """What has happened to the data that a step reads since a fingerprint of them was taken, and their present one.

    Returns:
        `PATH was changed`, or was added or removed, and how many others there are; empty where nothing has happened
        that matters to the step.
    """
    now = fingerprint(step.files(), earlier)
    names = _counting(step, differing(earlier, now), earlier.files, now.files)
    if not names:
        return "", now
    begun, present = (files.get(names[0], MISSING) != MISSING for files in (earlier.files, now.files))
    what = "changed" if begun and present else "removed" if begun else "added"
    more = f", like {len(names) - 1} more" if len(names) > 1 else ""
    return f"{_place(step, names[0])} was {what}{more}", now


def _counting(step: Step, names: list[str], *lists: Mapping[str, str]) -> list[str]:
    """Those of some names in fingerprints that matter to a step, given all names then and now."""
    strays = set[str]()
    for number, source in enumerate(step.inputs):
        begin = f"{number}/"
        if source.reads != "all" and any(name.startswith(begin) for name in names):
            from consistent4d_ns.batching.counting import counted  # slow, and asked only where something differs

            both = [[name.removeprefix(begin) for name in files if name.startswith(begin)] for files in lists]
            read = set[str]().union(*(counted(source.reads, each) for each in both))
            strays |= {begin + name for each in both for name in each if name not in read}
    return [name for name in names if name not in strays]


def _place(step: Step, name: str) -> str:
    """The path of a file in a fingerprint, in a message."""
    number, _, file = name.partition("/")
    paths = {str(number): Path(source.path) for number, source in enumerate(step.inputs)}
    return printable(str(paths[number] / file)) if number in paths else "a folder of data"


def _changes(before: tuple[str, ...], now: tuple[str, ...]) -> str:
    """What differs between the arguments of a step; empty where nothing does but the order of options."""
    old, new = _named_values(before), _named_values(now)
    names = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    told = [f"{_told(name)}: {_told(old.get(name))}, now {_told(new.get(name))}" for name in names[:MOST_CHANGES]]
    return "; ".join(told) + (f"; and {len(names) - MOST_CHANGES} more" if len(names) > MOST_CHANGES else "")


def _told(text: str | None) -> str:
    """A name or a value in a message: short, in one line."""
    if text is None:
        return "none"
    return printable(text if len(text) <= LONGEST_TOLD else f"{text[:LONGEST_TOLD]}...")


def _named_values(arguments: tuple[str, ...]) -> dict[str, str]:
    """The arguments of a step by name: those of a training are JSON, those of a command options and paths."""
    values, name = dict[str, str](), "command"
    # What is no training's is taken as it is.
    with suppress(ValueError, RecursionError, LookupError, TypeError, AttributeError):
        training = json.loads(arguments[-1])
        pairs = [str(assignment).partition("=") for assignment in training.pop("assignments")]
        return {**{key: str(value) for key, value in training.items()}, **{key: value for key, _, value in pairs}}
    for word in arguments:
        if word.startswith("--"):
            name = word
        values[name] = f"{values[name]} {word}" if name in values else "on" if word == name else word
    return {key: value.removeprefix("on ") for key, value in values.items()}


def changed(work: Work, record: Record) -> Iterator[tuple[str, str]]:
    """Names of the steps that were done otherwise, or were begun and have left something; and what the difference is.

    What is made of their output is not among them.
    """
    for step in work.steps:
        earlier = record.steps.get(step.name)
        there = earlier is not None and (earlier.done or (work.place / step.output).exists())
        if earlier is not None and there and (what := difference(step, earlier, work.place)):
            yield step.name, what


def renewed(work: Work, record: Record) -> Record:
    """A record with the present sizes and times of data that are what they were, as where they were copied."""
    steps = dict(record.steps)
    for step in work.steps:
        earlier = steps.get(step.name)
        if earlier is not None and earlier.inputs is not None:
            what, now = data_changes(step, earlier.inputs)
            steps[step.name] = earlier if what else dataclasses.replace(earlier, inputs=now)
    return dataclasses.replace(record, steps=steps)


def check_unchanged(work: Work, record: Record) -> None:
    """Raises: InputError: a step was begun with other arguments or data, so that its output would be replaced."""
    if found := list(changed(work, record)):
        what = found[0][1]
        names = ", ".join(name for name, other in found if other == what)
        raise InputError(
            f"{work.folder}: {names} of {work.name} was {what}: give another --out, or --overwrite to do again what "
            "changes."
        )
