"""Checks of Triton kernels on the CPU, in a process of their own: Triton chooses the interpreter when imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from consistent4d_ns.device.kernels import has_triton


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
"""For kernels whose loops have bounds that are computed."""


def run_interpreted(module: str, call: str) -> None:
    """Calls a function of a test module, written with its arguments; fails with what it says."""
    code = f"import {module}; {module}.{call}"
    environment, root = os.environ | {"TRITON_INTERPRET": "1"}, Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
