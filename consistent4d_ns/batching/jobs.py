"""Which jobs there are: those of a YAML file, or one for each sequence in a folder. Imports nothing slow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, get_args

from consistent4d_ns.errors import InputError, did_you_mean
from consistent4d_ns.files.names import absolute, expanded, is_plain_name
from consistent4d_ns.files.yaml_files import read_yaml
from consistent4d_ns.sweeping.methods import TEXT_METHOD, Method

Export = Literal["web", "mesh", "points", "splats", "usd", "usdz", "video"]
Options: TypeAlias = Mapping[str, "str | tuple[str, ...]"]
"""Options of a command by name, with their values as they are written; several where an option takes several."""
MOST_JOBS = 10_000
"""Jobs of a batch."""
LONGEST_NAME = 150
"""Characters of a job's name: names of files end at 255 bytes."""
NOTHING = ("~", "null", "Null", "NULL")
"""How YAML writes that there is no value; here all values are texts."""
LONGEST = 8192
"""Characters that an option may have: Linux hands no more than 128 KiB to a process as one word."""
RESERVED = (".html", ".json", ".txt")
"""Endings of what a batch writes beside its jobs' folders."""


@dataclass(frozen=True)
class Job:
    """One sequence, and what is to be done with it."""

    name: str
    """Name of its folder, and what to call it."""
    data: Path
    """The video, or the folder of frames; an absolute path."""
    method: Method
    """The preset."""
    prepare: Options | None = None
    """Options of `consistent4d prepare`; None: the frames are trained on as they are."""
    options: Options = field(default_factory=dict)
    """Options of `ns-train`."""
    truth: Path | None = None
    """Truth to evaluate the run with; an absolute path."""
    evaluate: Options = field(default_factory=dict)
    """Options of `consistent4d eval`."""
    exports: Mapping[Export, Options] = field(default_factory=dict)
    """What is exported, with the options of each."""


KEYS = ("name", "data", "method", "prepare", "options", "truth", "evaluate", "exports")
"""What a job in a file may have."""
DEFAULTS = tuple(key for key in KEYS if key not in ("name", "data"))
"""What the defaults may have."""
MERGED = ("prepare", "options", "evaluate")
"""Of these, a job's own values are added to the defaults; all else replaces them."""


def read_jobs(file: Path, needs_preparing: Callable[[Path], bool]) -> list[Job]:
    """The jobs of a YAML file; paths in it are relative to its folder.

    Args:
        file: The file.
        needs_preparing: Tells of a path to frames or a video whether its object is still to be cut out; asked where a
            job does not say.

    Raises:
        InputError: the file cannot be read, or describes no jobs; the message names the file and the place in it.
    """
    content = read_yaml(file)
    values = _mapping(content, f"{file}", ("defaults", "jobs"))
    defaults = _mapping(values.get("defaults") or {}, f"{file}, defaults", DEFAULTS)
    entries = values.get("jobs")
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{file} lists no jobs: give them under `jobs:`, each with a name and data.")
    if len(entries) > MOST_JOBS:
        raise InputError(f"{file} lists {len(entries)} jobs: give at most {MOST_JOBS} at once.")
    jobs = []
    for number, entry in enumerate(entries, start=1):
        own = _mapping(entry, f"{file}, job {number}", KEYS)
        where = f"{file}, job {own['name'] if isinstance(own.get('name'), str) else number}"
        jobs.append(_job(_merged(defaults, own, where), where, file.parent.absolute(), needs_preparing))
    check_names([job.name for job in jobs], str(file))
    return jobs


def check_names(names: Sequence[str], where: str) -> None:
    """Raises: InputError: two jobs would share a folder, or one would have none."""
    for name in names:
        if not is_plain_name(name) or name[0] in "-." or name != name.strip() or len(name) > LONGEST_NAME:
            raise InputError(
                f"{where}: {name[:80]!r} is no name for a job's folder: use at most {LONGEST_NAME} characters, none of "
                "them / or \\, and do not begin with - or a dot."
            )
        if name.casefold().endswith(RESERVED):
            raise InputError(f"{where}: {name} ends as a file of the batch does: give the job another name.")
    folded = Counter(name.casefold() for name in names)
    if twice := [name for name in names if folded[name.casefold()] > 1]:
        raise InputError(f"{where}: {' and '.join(twice[:2])} would share a folder: give each job a name of its own.")


def _mapping(value: Any, where: str, keys: Sequence[str]) -> dict[str, Any]:
    """A mapping with none but these keys.

    Raises:
        InputError: it is none, or has another key; the message names those that are spelt nearly so.
    """
    if not isinstance(value, dict):
        raise InputError(f"{where}: give {', '.join(keys)}, each as `key: value`.")
    for key in value:
        if key not in keys:
            raise InputError(f"{where}: {nearest(key, keys)}")
    return value


def nearest(key: str, keys: Sequence[str]) -> str:
    """What to say of a key that is none of these."""
    remedy = did_you_mean(key, keys, most=2) or f"use {', '.join(keys)}."
    return f"{key[:80]} is unknown; {remedy}"


def _merged(defaults: Mapping[str, Any], own: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A job's values, with the defaults where it has none."""
    merged = {**defaults, **own}
    for key in MERGED:
        both = [values[key] for values in (defaults, own) if key in values]
        if len(both) == 2 and all(isinstance(values, dict) for values in both):
            own_names = {_option_name(name) for name in both[1]}
            general = {name: value for name, value in both[0].items() if _option_name(name) not in own_names}
            merged[key] = {**general, **both[1]}
    merged = {key: value for key, value in merged.items() if value not in NOTHING}
    for key in ("name", "data", "method"):
        if not isinstance(merged.get(key), str) or not merged[key]:
            raise InputError(f"{where}: {key} is missing: give it as `{key}: VALUE`.")
    return merged


def _job(values: Mapping[str, Any], where: str, base: Path, needs_preparing: Callable[[Path], bool]) -> Job:
    """A job of a file, checked."""
    data = _existing(values["data"], f"{where}: data", base)
    truth = _existing(values["truth"], f"{where}: truth", base) if values.get("truth") else None
    if values["method"] == TEXT_METHOD:
        raise InputError(f"{where}: method {TEXT_METHOD} reads a prompt, and a job has frames: use ns-train for it.")
    if values["method"] not in get_args(Method):
        raise InputError(f"{where}: method {nearest(values['method'], get_args(Method))}")
    return Job(
        values["name"],
        data,
        values["method"],
        _preparing(values.get("prepare"), f"{where}: prepare", data, needs_preparing),
        _options(values.get("options") or {}, f"{where}: options"),
        truth,
        _options(values.get("evaluate") or {}, f"{where}: evaluate"),
        _exports(values.get("exports") or {}, f"{where}: exports"),
    )


def _existing(value: Any, where: str, base: Path) -> Path:
    """An absolute path to something that exists."""
    if not isinstance(value, str) or "\0" in value:
        raise InputError(f"{where}: give one path.")
    path = absolute(base / expanded(Path(value)))
    if not path.exists():
        raise InputError(f"{where}: {path} does not exist; relative paths begin at the folder of the file.")
    return path


def _preparing(value: Any, where: str, data: Path, needs_preparing: Callable[[Path], bool]) -> Options | None:
    """Options of `consistent4d prepare`; None where nothing is to be prepared."""
    if isinstance(value, dict):
        return _options(value, where)
    if value is None:
        return {} if needs_preparing(data) else None
    if not isinstance(value, str) or value.lower() not in ("true", "false"):
        raise InputError(f"{where}: give true, false, or options of `consistent4d prepare` as `option: value`.")
    return {} if value.lower() == "true" else None


def _options(value: Any, where: str) -> dict[str, str | tuple[str, ...]]:
    """Options by name, with dashes."""
    if not isinstance(value, dict):
        raise InputError(f"{where}: give options as `option: value`.")
    found: dict[str, str | tuple[str, ...]] = {}
    for key, given in value.items():
        name = _option_name(key)
        if name in found:
            raise InputError(f"{where}: {name} is given twice: leave out one of them.")
        if "\0" in str(given) or len(str(given)) > LONGEST:
            raise InputError(f"{where}: {name} has a zero character, or more than {LONGEST} characters.")
        if isinstance(given, list) and all(isinstance(one, str) for one in given):
            found[name] = tuple(given)
        elif isinstance(given, str):
            found[name] = given
        else:
            raise InputError(f"{where}: {key} is not a value or a list of values.")
    return found


def default_name(path: Path) -> str:
    """What a file or a folder is called where no name is given: a file's without its ending."""
    return path.name if path.is_dir() else path.stem


def _option_name(key: str) -> str:
    """The name of an option as it is written on a command line, without leading dashes."""
    return key.removeprefix("--").replace("_", "-")


def option_words(options: Options) -> list[str]:
    """Options as a command line has them: `lit: true` is --lit, `lit: false` is --no-lit."""
    words: list[str] = []
    for name, value in options.items():
        if isinstance(value, str) and value.lower() in ("true", "false"):
            words.append(f"--{name}" if value.lower() == "true" else f"--no-{name}")
        else:
            words += [f"--{name}", *([value] if isinstance(value, str) else value)]
    return words


def _exports(value: Any, where: str) -> dict[Export, Options]:
    """What is exported: a list of names, or names with options."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        value = {one: {} for one in value}
    if not isinstance(value, dict):
        raise InputError(f"{where}: give a list of {', '.join(get_args(Export))}, or one with options for each.")
    known = cast("dict[Export, Any]", _mapping(value, where, get_args(Export)))
    return {name: _options(given or {}, f"{where}, {name}") for name, given in known.items()}


@dataclass(frozen=True)
class Common:
    """What the jobs of a folder have in common."""

    method: Method
    """The preset."""
    options: Options = field(default_factory=dict)
    """Options of `ns-train`."""
    exports: Sequence[Export] = ()
    """What is exported."""


def jobs_in(
    folder: Path, sequences: Sequence[Path], common: Common, needs_preparing: Callable[[Path], bool]
) -> list[Job]:
    """A job for every video and every folder of frames in a folder, named after it.

    Args:
        folder: The folder, as it was given.
        sequences: The videos and folders of frames in it.
        common: What is to be done with each.
        needs_preparing: As for `read_jobs`.

    Raises:
        InputError: there is none, or two would share a name.
    """
    if not sequences:
        raise InputError(
            f"{folder} holds no videos and no folders of frames: give a folder of several of them, or a YAML file."
        )
    jobs = []
    for path in sequences:
        prepare = {} if needs_preparing(path) else None
        name = default_name(path)
        exports: dict[Export, Options] = {export: {} for export in common.exports}
        jobs.append(Job(name, absolute(path), common.method, prepare, common.options, exports=exports))
    check_names([job.name for job in jobs], str(folder))
    return jobs
