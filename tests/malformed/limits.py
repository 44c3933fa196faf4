"""A command in a process whose memory, time and rights have a limit."""

from __future__ import annotations

import ctypes
import json
import os
import resource
from pathlib import Path

from tests.support.commands import become

SECONDS = 10.0
"""CPU time within which a command has to say what is wrong."""
BYTES = 2 * 2**30
"""Memory that it may use, beside what the imported libraries take."""
CAPABILITIES = 0x20080522
"""Version of the system's interface to the rights of a process, `_LINUX_CAPABILITY_VERSION_3`."""
SET_SECUREBITS, NO_ROOT = 28, 0b11
"""Of `prctl`: root has no rights by its name, for good (`SECBIT_NOROOT` and `SECBIT_NOROOT_LOCKED`)."""


def run_limited(usage: Path, line: list[str], place: Path, environment: dict[str, str]) -> None:
    """Become a command; its CPU seconds and its peak of memory in bytes are written to `usage`."""
    drop_privileges()
    limit = data_size() + BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (int(SECONDS) * 3, int(SECONDS) * 3))
    before = resource.getrusage(resource.RUSAGE_SELF)
    try:
        become(line, place, environment)
    finally:
        after = resource.getrusage(resource.RUSAGE_SELF)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        usage.write_text(json.dumps([seconds, after.ru_maxrss * 1024]))


def drop_privileges() -> None:
    """Give up what root may do beyond others, so that permissions of files count."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(CAPABILITIES, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if libc.capset(header, nothing):
        raise OSError(ctypes.get_errno(), "capset")


def drop_privileges_for_good() -> None:
    """The same for a process that starts another program, with which root would have its rights again."""
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0 and libc.prctl(SET_SECUREBITS, NO_ROOT, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    drop_privileges()


def data_size() -> int:
    """Bytes of memory that count against the limit already: those of the libraries."""
    rows = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(row for row in rows if row.startswith("VmData")).split()[1])
