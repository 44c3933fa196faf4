"""Freed memory is used again instead of being returned to the system, until that is asked for."""

from __future__ import annotations

import platform
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
import torch

from consistent4d_ns.device import cpu
from consistent4d_ns.device.cpu import NowAndThen, keep_freed_memory, return_freed_memory
from tests.support.forked import call_forked

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")


def test_large_tensors_reuse_their_pages() -> None:
    keep_freed_memory()
    faults = []
    for _ in range(30):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(1 << 24)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    assert min(faults) < (1 << 26) // 4096 // 10


def resident() -> int:
    """Bytes of memory that this process has and that are no file's."""
    rows = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(row for row in rows if row.startswith("RssAnon")).split()[1])


def free_in_threads() -> None:
    """Eight threads free 16 MB each; prints what is kept of it, before and after."""
    keep_freed_memory()
    all_live, before = Barrier(8), resident()

    def use(_: int) -> None:
        all_live.wait()
        torch.ones(1 << 22)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(8)))
        kept = resident() - before
        return_freed_memory()
        print(kept, resident() - before)


@pytest.mark.slow
def test_what_threads_have_freed_is_returned() -> None:
    """As the viewer's threads do while a training goes on."""
    done = call_forked(free_in_threads)
    assert done.returncode == 0, done.stderr
    kept, left = map(int, done.stdout.split())
    assert kept > 4 << 24 > 16 * left


def test_memory_is_returned_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    times = [0.0, 0.5, 1.9, 2.0, 2.1, 4.5]
    clock, returned = iter(times), []
    monkeypatch.setattr(cpu.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(cpu, "return_freed_memory", lambda: returned.append(True))
    call, counts = NowAndThen(), []
    for _ in times:
        call()
        counts.append(len(returned))
    assert counts == [1, 1, 1, 2, 2, 3]
