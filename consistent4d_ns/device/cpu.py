"""How a process uses the memory of its CPU."""

from __future__ import annotations

import ctypes
import math
import platform
import time

MMAP_THRESHOLD, TRIM_THRESHOLD, ARENA_MAX = -3, -1, -8
"""Parameters of glibc's mallopt (malloc.h)."""
LARGEST_BLOCK = 1 << 30
"""Blocks of fewer bytes are taken from memory that was freed."""
RETURN_SECONDS = 2.0
"""Seconds between two times at which free memory is returned; it takes about 25 ms to return it and to get it back."""


def keep_freed_memory() -> None:
    """Let the C library use freed memory again instead of returning it to the system; nothing where it is not glibc.

    By default every tensor of tens of MB is mapped anew and unmapped, and the system fills its pages with zeros: a
    quarter of the time of a distillation step in float32. The peak is the same.
    """
    if _has_glibc():
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(MMAP_THRESHOLD, LARGEST_BLOCK)
        mallopt(TRIM_THRESHOLD, 2 * LARGEST_BLOCK - 1)
        mallopt(ARENA_MAX, 1)


def return_freed_memory() -> None:
    """Return what is free at this moment to the system; nothing where the C library is not glibc.

    Done from time to time, a process has what it uses now instead of the most that it ever used.
    """
    if _has_glibc():
        ctypes.CDLL(None).malloc_trim(0)


class NowAndThen:
    """Returns what is free, if that was last done some time ago; to be called after each piece of work.

    A training that draws pictures for a page would otherwise keep 100 MB and more that are free at the moment.
    """

    def __init__(self) -> None:
        self._last = -math.inf

    def __call__(self) -> None:
        """Return it, if it is time."""
        now = time.monotonic()
        if now - self._last >= RETURN_SECONDS:
            self._last = now
            return_freed_memory()


return_freed_memory_now_and_then = NowAndThen()
"""One for all threads, which share one heap."""


def _has_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"
