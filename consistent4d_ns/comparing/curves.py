"""Loss curves of several runs, as pictures within a page (SVG)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from consistent4d_ns.loss_weights import split_level
from consistent4d_ns.record.history import Row, by_stage, series_of

POINTS = 240
"""Points of a drawn curve; it is smooth, and a chart is hardly wider than that."""
WIDTH, HEIGHT = 360.0, 200.0
"""Size of a chart in its own units."""
LEFT, RIGHT, TOP, BOTTOM = 46.0, 8.0, 8.0, 22.0
"""Space around the curves for the labels."""
LIMITS = (1e-100, 1e100)
"""Values beyond these are drawn at them: their logarithms, and round numbers about them, are finite."""
TICKS = 4
"""Labels of an axis, roughly."""
MOST_TERMS = 100
"""Terms of a history that are drawn; a training has about a dozen."""


@dataclass(frozen=True)
class Curve:
    """A term of one run by training step, smoothed within each stage of training; NaN between stages."""

    steps: Float64[np.ndarray, " points"]
    values: Float64[np.ndarray, " points"]

    @property
    def last_step(self) -> float:
        """The last training step with a value."""
        return float(np.nanmax(self.steps))


def finest_curves(rows: Sequence[Row], stages: Sequence[int]) -> dict[str, Curve]:
    """The curve of every term, of the finest level of those that have levels, which is what one sees of a run.

    Args:
        rows: A run's history.
        stages: First steps of its stages.

    Raises:
        ValueError: there are more than `MOST_TERMS`.
    """
    finest: dict[str, tuple[int, str]] = {}
    for name in dict.fromkeys(name for row in rows for name in row if name != "step"):
        term, level = split_level(name)
        finest[term] = max(finest.get(term, (-1, "")), (level, name))
    if len(finest) > MOST_TERMS:
        raise ValueError(f"{len(finest)} terms, and at most {MOST_TERMS} are drawn")
    curves = {term: thinned(*by_stage(*series_of(rows, name), stages)) for term, (_, name) in finest.items()}
    return {term: curve for term, curve in curves.items() if np.isfinite(curve.steps).any()}


def thinned(steps: np.ndarray, values: np.ndarray, smooth: np.ndarray) -> Curve:
    """About `POINTS` of the smoothed values, with the gaps between stages."""
    even = np.linspace(0, max(0, len(steps) - 1), min(POINTS, len(steps))).round().astype(int)
    gaps = np.flatnonzero(np.isnan(steps))
    ends = np.concatenate((gaps - 1, gaps + 1))  # So that each stage is drawn to its ends.
    kept = np.unique(np.concatenate((even, gaps, ends[(ends >= 0) & (ends < len(steps))]))).astype(int)
    return Curve(steps[kept], np.clip(smooth[kept], *LIMITS))


def chart(curves: Mapping[int, Curve], last: int, stages: Sequence[int], label: str) -> str:
    """One term of all runs: logarithmic over the training step.

    Args:
        curves: By the number of the run; at least one with a finite point.
        last: Training step at which the axis ends; it begins at 0.
        stages: First steps of stages to mark.
        label: What the picture shows, for those who cannot see it.

    Returns:
        An SVG element. It holds no text of a user but `label`, which has to be escaped.
    """
    values = np.concatenate([curve.values for curve in curves.values()])
    low, high = _log_range(float(np.nanmin(values)), float(np.nanmax(values)))

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / max(last, 1)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - math.log10(value)) / (high - low)

    parts = [_grid_line(y(value), _short(value)) for value in log_ticks(low, high)]
    parts += [_step_label(x(step), step) for step in step_ticks(last)]
    parts += [
        f'<line class="stage" x1="{x(step):.1f}" x2="{x(step):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        for step in stages
        if 0 < step < last
    ]
    for number, curve in curves.items():
        points = [(x(s), y(v)) if math.isfinite(s) else None for s, v in zip(curve.steps, curve.values, strict=True)]
        parts.append(f'<path class="curve" data-run="{number}" d="{_path(points)}"/>')
    return f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _log_range(low: float, high: float) -> tuple[float, float]:
    """Both ends of an axis as powers of ten, with some room, and never empty."""
    bottom, top = math.log10(low), math.log10(high)
    room = max(0.04 * (top - bottom), 0.02)
    return bottom - room, top + room


def log_ticks(low: float, high: float) -> list[float]:
    """A few values between two powers of ten, round where there are at least two such values."""
    decades, inside = range(math.floor(low), math.ceil(high) + 1), list[float]()
    for digits in ((1,), (1, 3), (1, 2, 5), range(1, 10)):
        ticks = [digit * 10.0**decade for decade in decades for digit in digits]
        inside = [tick for tick in ticks if low <= math.log10(tick) <= high]
        if len(inside) >= TICKS - 1:
            return inside[:: max(1, round(len(inside) / TICKS))]
    if len(inside) > 1:
        return inside
    return [float(f"{value:.3g}") for value in np.geomspace(10.0**low, 10.0**high, TICKS)[1:-1]]


def step_ticks(last: int) -> list[int]:
    """A few round steps from 0 on."""
    rough = max(last / TICKS, 1.0)
    decade = 10.0 ** math.floor(math.log10(rough))
    unit = int(next(factor * decade for factor in (1, 2, 5, 10) if factor * decade >= rough))
    return list(range(0, last + 1, unit))


def _grid_line(y: float, label: str) -> str:
    line = f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return f'{line}<text x="{LEFT - 5}" y="{y + 3.5:.1f}" text-anchor="end">{label}</text>'


def _step_label(x: float, step: int) -> str:
    return f'<text x="{x:.1f}" y="{HEIGHT - 6}" text-anchor="middle">{step}</text>'


def _short(value: float) -> str:
    """A number in few characters: 0.002, 3e-05."""
    return f"{value:.3g}"


def _path(points: Sequence[tuple[float, float] | None]) -> str:
    """SVG path through some points; None begins a new part."""
    commands, pen = [], "M"
    for point in points:
        if point is not None:
            commands.append(f"{pen}{point[0]:.1f} {point[1]:.1f}")
        pen = "M" if point is None else "L"
    return "".join(commands)
