"""Importing this spares the processes that are forked afterwards from searching what is there now for garbage.

They would only copy all of its memory.
"""

from __future__ import annotations

import gc

gc.collect()
gc.freeze()
