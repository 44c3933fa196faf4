"""Freed memory is used again instead of being returned to the system, by all threads."""

from __future__ import annotations

import ctypes
import platform
import resource
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Lock

import pytest
import torch

from consistent4d_ns.device.cpu import keep_freed_memory
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


class Heaps(ctypes.Structure):
    """What glibc's `mallinfo2` gives; `arena` are the bytes of all heaps."""

    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd")]
    _fields_ += [(name, ctypes.c_size_t) for name in ("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]


def heap_size() -> int:
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = Heaps
    return libc.mallinfo2().arena


def allocate_in_threads() -> None:
    """Eight threads, which live at the same time, use and free 16 MB one after the other."""
    keep_freed_memory()
    torch.ones(1 << 22)
    before, all_live, turn = heap_size(), Barrier(8), Lock()

    def use(_: int) -> None:
        all_live.wait()
        with turn:
            torch.ones(1 << 22)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(8)))
        print(heap_size() - before)


@pytest.mark.slow
def test_threads_share_what_was_freed() -> None:
    """Each would keep its 16 MB otherwise, as the viewer's threads did."""
    done = call_forked(allocate_in_threads)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 3 << 24
