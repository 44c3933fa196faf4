"""The C compiler that the kernels for the CPU are compiled with. Nothing slow is imported."""

from __future__ import annotations

import os
import shlex
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
    """The C compiler as it is called: the environment variable CC, which may have arguments, else `cc`."""
    return os.environ.get("CC") or "cc"


def find_compiler() -> tuple[str, ...] | None:
    """Path and arguments of that compiler; None if there is none, or it does not compile a kernel of one line."""
    try:
        name, *arguments = shlex.split(wanted_compiler())
    except ValueError:  # an open quotation mark, or nothing but blanks
        return None
    found = shutil.which(name)
    if found is None:
        return None
    compiler = (found, *arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="consistent4d-") as folder:
            trial = Path(folder) / "trial.c"
            trial.write_text("int one(void) { return 1; }\n")
            command = [*compiler, *FLAGS, str(trial), "-o", str(trial.with_suffix(".so"))]
            return None if subprocess.run(command, capture_output=True).returncode else compiler
    except OSError:  # Such a file cannot be executed, or there is no folder for temporary files.
        return None
