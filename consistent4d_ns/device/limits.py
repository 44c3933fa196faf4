"""How much memory a process may use. Nothing slow is imported."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

NO_LIMIT = 1 << 60
"""Version 1 of control groups writes a number beyond this where there is no limit."""


def memory_limit() -> int | None:
    """Bytes of memory that this process may use: the machine's, or less where a control group limits it.

    None where the system does not tell.
    """
    try:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        machine = None
    return min((limit for limit in (machine, *cgroup_limits(Path("/"))) if limit), default=None)


def cgroup_limits(root: Path) -> Iterator[int]:
    """Limits in bytes of the control groups (Linux, version 1 and 2) that this process is in, and those above them.

    Args:
        root: Root of the file system, which holds `proc` and `sys`.
    """
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers not in ("", "memory"):
            continue
        folder, name = (root / "sys/fs/cgroup", "memory.max")
        if controllers == "memory":
            folder, name = folder / "memory", "memory.limit_in_bytes"
        group = PurePosixPath(path.lstrip("/"))
        for above in (group, *group.parents):
            for limit in _lines(folder / above / name):
                if limit.isdecimal() and int(limit) < NO_LIMIT:
                    yield int(limit)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except (OSError, ValueError):
        return []
