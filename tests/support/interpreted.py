"""Checks of Triton kernels on the CPU, in processes that imported Triton as its own interpreter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from consistent4d_ns.device.kernels import has_triton
from tests.support.forked import call_forked


def _arrays_of_one_are_numbers() -> bool:
    try:
        int(np.ones(1))
    except TypeError:
        return False
    return True


needs_triton = pytest.mark.skipif(not has_triton(), reason="needs Triton, which torch has on Linux")
needs_interpreted_loops = pytest.mark.skipif(
    not _arrays_of_one_are_numbers(),
    reason="Triton's interpreter counts loops with int() of arrays of one element, which this NumPy refuses",
)
"""For kernels with loops whose bounds are computed."""


def run_interpreted(check: Callable[..., None], *arguments: Any) -> None:
    """Call a check of kernels in a process that interprets them; if it fails, say what it printed."""
    done = call_forked(_interpreted, check, arguments)
    assert done.returncode == 0, done.stderr


def _interpreted(check: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    import triton

    assert not isinstance(triton.language.cdiv, triton.JITFunction), "Triton was imported as a compiler"
    check(*arguments)
