"""The script with which Slurm runs a batch: an array with one task for every job."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from consistent4d_ns.errors import InputError

OWN = ("array", "job-name", "output", "error", "signal", "requeue", "no-requeue", "open-mode", "wrap", "chdir")
"""Options of sbatch that the script sets itself, or that would contradict it."""
GPUS = ("gpus", "gres", "gpus-per-node", "gpus-per-task", "gpus-per-socket")
"""Options of sbatch that say how many GPUs a task gets."""
BARE = (
    *("consolidate-segments", "contiguous", "external", "hold", "ignore-pbs", "overcommit", "oversubscribe"),
    *("quiet", "reboot", "spread-job", "spread-segments", "stepmgr", "use-min-nodes", "verbose", "wait"),
    *("help", "parsable", "test-only", "usage", "version"),
)
"""Options of sbatch that have no value, as its source says in Slurm 26.11; no-requeue is among `OWN`."""
BARE_OR_NOT = ("exclusive", "get-user-env", "nice", "no-kill", "oom-kill-step", "propagate", "resv-ports")
"""Options of sbatch whose value may be left out, likewise; before 26.11, get-user-env may have one."""
VALUED = (
    *GPUS,
    *("account", "acctg-freq", "autocomplete", "batch", "bb", "bbf", "begin", "cluster", "cluster-constraint"),
    *("clusters", "comment", "constraint", "container", "container-id", "context", "core-spec", "cores-per-socket"),
    *("cpu-freq", "cpus-per-gpu", "cpus-per-task", "deadline", "delay-boot", "dependency", "distribution", "exclude"),
    *("export", "export-file", "extra", "extra-node-info", "gid", "gpu-bind", "gpu-freq", "gres-flags", "hint"),
    *("input", "kill-on-invalid-dep", "licenses", "mail-type", "mail-user", "mcs-label", "mem", "mem-bind"),
    *("mem-per-cpu", "mem-per-gpu", "mem-update", "mincpus", "network", "nodefile", "nodelist", "nodes", "ntasks"),
    *("ntasks-per-core", "ntasks-per-gpu", "ntasks-per-node", "ntasks-per-socket", "ntasks-per-tres", "partition"),
    *("prefer", "priority", "profile", "qos", "reservation", "resources", "runtime", "segment", "sockets-per-node"),
    *("switches", "tasks-per-node", "thread-spec", "threads-per-core", "time", "time-min", "tmp", "tres-bind"),
    *("tres-per-task", "uid", "wait-all-nodes", "wckey"),
)
"""Options of sbatch that need a value, likewise. Plugins of a cluster add others, some without one, as Pyxis does."""
NOTICE = 120
"""Seconds before the end of its time at which a job is told to save a checkpoint and to end."""


def script(names: Sequence[str], command: Sequence[str], out: Path, options: Sequence[str], at_once: int | None) -> str:
    """The script.

    Args:
        names: Names of the jobs.
        command: The command that does all of them; `--only NAME` is added to it.
        out: Folder of all jobs; absolute.
        options: Further options of sbatch, as NAME=VALUE or NAME.
        at_once: The most tasks at once; None: as many as Slurm likes.

    Raises:
        InputError: an option cannot be written, or is the script's own.
    """
    given = [_option(option) for option in options]
    set_here = [name for name, _ in given]
    if not any(could_be(name, GPUS) for name in set_here):
        given.append(("gpus", "1"))
    limit = "" if at_once is None else f"%{at_once}"
    lines = [
        ("array", f"0-{len(names) - 1}{limit}"),
        ("job-name", "consistent4d"),
        ("output", f"{str(out).replace('%', '%%')}/slurm-%a.txt"),
        ("open-mode", "append"),
        ("requeue", ""),
        ("signal", f"B:TERM@{NOTICE}"),
        *given,
    ]
    array = "\n".join(f"  {shlex.quote(name)}" for name in names)
    return f"""#!/bin/bash
{chr(10).join(_line(name, value) for name, value in lines)}
# Written by `consistent4d batch --slurm`; start it with sbatch. A task whose job is done ends at once, and one whose
# job was interrupted goes on, so that the script can be started again.
jobs=(
{array}
)
cd {shlex.quote(str(Path.cwd()))} || exit 1
exec {shlex.join(command)} --only "${{jobs[$SLURM_ARRAY_TASK_ID]}}"
"""


def could_be(name: str, options: Sequence[str]) -> str | None:
    """The first of these options that a name may stand for: sbatch takes any beginning of a name that is clear."""
    return next((option for option in options if option.startswith(name)), None)


def _option(option: str) -> tuple[str, str]:
    """Name and value of an option of sbatch.

    Raises:
        InputError: it is not written in its long form, is the script's own, lacks a value, or has one too many.
    """
    name, _, value = option.removeprefix("--").partition("=")
    if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
        raise InputError(
            f"--sbatch {option}: give NAME=VALUE or NAME, with the long name, as in partition=gpu or exclusive."
        )
    if own := could_be(name, OWN):
        meant = "" if name == own else f"{name} may stand for {own}: "
        raise InputError(f"--sbatch {option}: {meant}the script sets {own} itself; change it there.")
    if not value and could_be(name, VALUED) and not could_be(name, (*BARE, *BARE_OR_NOT)):
        raise InputError(f"--sbatch {option}: sbatch needs a value here: give {name}=VALUE, or leave it out.")
    if value and name in BARE:
        raise InputError(f"--sbatch {option}: sbatch takes no value here: give {name} alone, or leave it out.")
    return name, value


def _line(name: str, value: str) -> str:
    """A line for sbatch, which takes a value in double quotes where it has spaces.

    Raises:
        InputError: the value cannot be written.
    """
    if not value.isprintable() or re.search(r'["\\]', value):
        raise InputError(
            f"{value!r} cannot be written into a script for sbatch: it has quotes, backslashes or control characters."
        )
    quoted = f'"{value}"' if re.search(r"[^\w.,:=@%+/-]", value) else value
    return f"#SBATCH --{name}" + (f"={quoted}" if value else "")
