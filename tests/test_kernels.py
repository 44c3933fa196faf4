"""Triton kernels agree with the plain functions where Triton interprets them on the CPU."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from consistent4d_ns import kernels


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton, which torch has on Linux")
@pytest.mark.parametrize("check", ["check_composite", "check_lattice"])
def test_kernel_agrees_when_interpreted(check: str) -> None:
    # The interpreter is chosen when Triton is imported.
    code = f"from tests.kernel_agreement import {check}; {check}('cpu')"
    environment, root = os.environ | {"TRITON_INTERPRET": "1"}, Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_kernels_are_for_cuda_devices() -> None:
    assert not kernels.usable(torch.zeros(1))
