"""Freed memory is used again instead of being returned to the system."""

from __future__ import annotations

import platform
import resource

import pytest
import torch

from consistent4d_ns.device.cpu import keep_freed_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_large_tensors_reuse_their_pages() -> None:
    keep_freed_memory()
    faults = []
    for _ in range(30):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(1 << 24)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    assert min(faults) < (1 << 26) // 4096 // 10
