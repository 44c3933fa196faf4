"""The C compiler that the kernels for the CPU are compiled with. Nothing slow is imported."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

FLAGS = (
    *("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math"),
    *("-Wno-psabi", "-shared", "-fPIC", "-pthread", f"-I{Path(__file__).parent}"),
)
"""Options of the compiler; results may differ from torch's by rounding."""


def wanted_compiler() -> str:
    """Name of the C compiler: that of the environment variable CC, else `cc`."""
    return os.environ.get("CC") or "cc"


def find_compiler() -> str | None:
    """Path of that compiler; None if there is none, or it does not compile a kernel of one line."""
    found = shutil.which(wanted_compiler())
    if found is None:
        return None
    with tempfile.TemporaryDirectory(prefix="consistent4d-") as folder:
        trial = Path(folder) / "trial.c"
        trial.write_text("int one(void) { return 1; }\n")
        command = [found, *FLAGS, str(trial), "-o", str(trial.with_suffix(".so"))]
        return None if subprocess.run(command, capture_output=True).returncode else found
