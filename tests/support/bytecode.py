"""Where Python is told to write no bytecode, as in many images of containers, importing this has it written after all.

Otherwise every process would compile all that it imports, which takes longer than to run it. The files are in nobody's
way: in pytest's cache.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

CACHE = Path(__file__).parents[2] / ".pytest_cache" / "bytecode"
IS_MISSING = sys.dont_write_bytecode and not CACHE.exists()
"""Whether all is still to be compiled."""

if sys.dont_write_bytecode:
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.pycache_prefix = os.environ.setdefault("PYTHONPYCACHEPREFIX", str(CACHE))
    sys.dont_write_bytecode = False
