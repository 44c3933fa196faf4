"""What each preset needs, as figures and names: the one place for them in the code.

Tests compare them with the presets themselves and with the table of presets in README.md. Whoever measures again
changes both.
"""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT = "consistent4d"
"""The preset of the paper, for one's own videos."""


@dataclass(frozen=True)
class Needs:
    """What a preset needs of a machine, and what it took where it was measured (docs/performance.md)."""

    preset: str
    """Name of the method."""
    weights: tuple[str, ...]
    """Names of the weights, as in `weights.WEIGHTS`."""
    gpu_memory: tuple[int, int] | None
    """Peak of GPU memory in GiB: while sampling views, and with a field full of fog; None: it trains on a CPU, too."""
    minutes: tuple[int, int] | None
    """Shortest and longest time for all steps, in minutes; None: not measured yet."""
    measured_on: str
    """The machine that took this time."""


NEEDS = (
    Needs("consistent4d", ("zero123-xl", "rife"), (6, 8), (4, 5), "one H200"),
    Needs("consistent4d-big", ("zero123-xl", "rife"), (11, 11), (7, 7), "one H100"),
    Needs("consistent4d-mini", ("bundled",), None, (2, 3), "two CPU cores"),
    Needs("consistent4d-image", ("zero123-xl", "rife"), (6, 8), (1, 2), "one H200"),
    Needs("consistent4d-image-mini", ("bundled",), None, (1, 1), "two CPU cores"),
    Needs("consistent4d-text", ("stable-diffusion", "rife"), (12, 12), (12, 13), "one H200"),
)
"""The needs of all presets."""


def presets_with(weights: str) -> list[str]:
    """Names of the presets that need these weights."""
    return [needs.preset for needs in NEEDS if weights in needs.weights]
