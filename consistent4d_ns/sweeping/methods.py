"""Names of the presets that train on frames, for command lines and files; imports nothing slow."""

from __future__ import annotations

from typing import Literal

Method = Literal[
    "consistent4d", "consistent4d-big", "consistent4d-mini", "consistent4d-image", "consistent4d-image-mini"
]
"""Of presets that train on frames."""
TEXT_METHOD = "consistent4d-text"
"""The preset that trains on a prompt."""
