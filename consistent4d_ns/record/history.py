"""The loss terms of every training step: stored as JSON lines, plotted against the step."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from consistent4d_ns.errors import InputError
from consistent4d_ns.files.appending import append_whole
from consistent4d_ns.files.outputs import new_file, refusals
from consistent4d_ns.loss_weights import split_level
from consistent4d_ns.messages import warn

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, float | None]
"""Terms of one step, unweighted, by name as in the loss dictionary; and "step". None stands for what is not finite."""
Series = tuple[np.ndarray, np.ndarray]
"""Steps and values of a term."""
ROW_BEGIN = b'{"step": '
"""How every line of a history begins."""
LONGEST_ROW = 1 << 14
"""Bytes at the end of a history in which its last whole line is looked for."""
COLUMNS = 3
"""Terms side by side in a plot."""
LABEL_ROOM = 0.45
"""Height above the curves for labels of stages, as a share of the curves' own."""
SMOOTHING = 40
"""The drawn curve is the mean over this part of all values of a term."""


class LossHistory:
    """Terms by step in a file; in memory are those alone that are not written yet, however long a training takes.

    Values stay on their device until `flush`, so that no step waits for one.
    """

    def __init__(self, file: Path, earlier: Path | None = None) -> None:
        """
        Args:
            file: Where the history is kept, one JSON object per step.
            earlier: History of the run that this one goes on from, if it does.
        """
        self.file = file
        self.earlier = earlier
        self.unwritten: list[Row] = []
        """Rows that are not in the file yet."""
        self._pending: list[tuple[int, dict[str, Tensor]]] = []
        self._read = False
        """Whether the history of the steps before has been read."""
        self._begun = False
        """Whether what is in the file is the beginning of this history."""

    def begin(self, step: int) -> None:
        """Read the history of the steps before the first one of this training; says so where some are missing.

        Raises:
            InputError: what is kept there is no history.
        """
        source = self.file if self.file.exists() else self.earlier
        self.unwritten = [row for row in read_history(source) if (row["step"] or 0) < step] if source else []
        self._read = True
        missing = step - len(self.unwritten)
        if self.unwritten and missing > 0:
            warn(f"{source} lacks the losses of {missing} of the {step} steps before; they stay left out.")

    def record(self, step: int, terms: Mapping[str, Tensor]) -> None:
        """Record the terms of a step, after those of the steps before it (see `begin`).

        Raises:
            InputError: what is kept there is no history.
        """
        if not self._read:
            self.begin(step)
        self._pending.append((step, {name: term.detach() for name, term in terms.items()}))

    def flush(self) -> None:
        """Copy pending values to the CPU and append them to the file; the first call rewrites the file.

        Raises:
            InputError: it cannot be written; nothing recorded is lost, and a later call tries again.
        """
        values = [value.float() for _, terms in self._pending for value in terms.values()]
        numbers = iter(shortest_decimals(torch.stack(values)) if values else [])
        for step, terms in self._pending:
            known = {name: next(numbers) for name in terms}
            self.unwritten.append({"step": step, **{k: v if math.isfinite(v) else None for k, v in known.items()}})
        self._pending = []
        if self.unwritten:  # Without any, what is kept there may be no history.
            self._write("".join(json.dumps(row) + "\n" for row in self.unwritten).encode())
            self.unwritten, self._begun = [], True

    def _write(self, lines: bytes) -> None:
        if self._begun:
            with refusals(self.file):
                append_whole(self.file, lines)
        else:
            with new_file(self.file, overwrite=True) as unfinished:
                unfinished.write_bytes(lines)

    def rows(self) -> list[Row]:
        """All rows up to the latest `flush`, of which the file is read.

        Raises:
            InputError: what was written there is no history any more.
        """
        return [*(read_history(self.file) if self._begun else ()), *self.unwritten]


def shortest_decimals(values: Float32[Tensor, " values"]) -> list[float]:
    """The values as the shortest decimals that stand for them: 0.2, where `tolist` gives 0.20000000298."""
    return [float(str(value)) for value in values.cpu().numpy()]


def read_history(file: Path) -> list[Row]:
    """The rows of a history; none if there is no such file.

    A damaged last line is left out: that of a run that was killed, or whose machine lost power, while it wrote.

    Raises:
        InputError: another line is no row, the file is something else altogether, or it cannot be read.
    """
    if not file.exists():
        return []
    refusal = f"{file} is not a loss history ({{}}): move it away to train in its folder."
    if not file.is_file():
        raise InputError(refusal.format("not a regular file"))
    try:
        lines = [line for line in file.read_bytes().split(b"\n") if line]
    except OSError as error:
        raise InputError(refusal.format(error)) from error
    rows: list[Row] = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(parse_row(line))
        except (ValueError, OverflowError, RecursionError) as error:
            if number < len(lines) or not (rows or _was_a_row(line)):
                raise InputError(refusal.format(f"line {number}: {error}")) from error
    return rows


def _was_a_row(line: bytes) -> bool:
    """Whether the only line of a file may be what is left of a row, and not somebody else's file."""
    return line.startswith(ROW_BEGIN) or not line.strip(b"\0")


def last_step(file: Path) -> int | None:
    """The latest step in a history that is being written; None where there is none yet. Reads its end alone.

    Raises:
        OSError: it cannot be read.
    """
    if not file.is_file():
        return None
    with file.open("rb") as stream:
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - LONGEST_ROW))
        lines = stream.read().split(b"\n")[:-1]  # What follows the last line feed may be half a line.
    for line in reversed(lines):
        with suppress(ValueError, OverflowError, RecursionError):
            step = parse_row(line)["step"]
            return None if step is None else int(step)
    return None


def parse_row(line: bytes) -> Row:
    """A line of a history; numbers that are not finite become None.

    Raises:
        ValueError: it is no JSON object with a step and numbers.
        OverflowError: a number is out of range.
        RecursionError: it is nested too deeply.
    """
    row = json.loads(line.decode("utf-8"))
    if not isinstance(row, dict) or type(row.get("step")) is not int:
        raise ValueError("no step")
    for name, value in row.items():
        if value is not None and type(value) not in (int, float):
            raise ValueError(f"{name} is not a number")
    finite = {name: value if value is not None and math.isfinite(value) else None for name, value in row.items()}
    return {**finite, "step": row["step"]}


def plot_losses(rows: Sequence[Row], stages: Mapping[int, str], file: Path) -> None:
    """Draw every term on a logarithmic scale against the training step, its levels in one panel.

    Args:
        rows: The history.
        stages: First step of each stage that is marked, in order, and what to call it.
        file: PNG to write.
    """
    from matplotlib.figure import Figure

    panels: dict[str, dict[str, Series]] = {}
    for name in dict.fromkeys(name for row in rows for name in row if name != "step"):
        series = series_of(rows, name)
        if len(series[0]):  # A term that is zero throughout has no place on a logarithmic scale.
            panels.setdefault(split_level(name)[0], {})[name] = series
    columns = max(1, min(COLUMNS, len(panels)))
    height = max(1, math.ceil(len(panels) / columns))
    figure = Figure(figsize=(4.6 * columns, 3.1 * height), layout="constrained", dpi=120)
    axes = figure.subplots(height, columns, squeeze=False, sharex=True).flatten()
    for axis, (term, levels) in zip(axes, panels.items(), strict=False):
        _draw_term(axis, term, levels, list(stages))
    _mark_stages(list(axes[: len(panels)]), columns, stages)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    figure.savefig(file, format="png")


def series_of(rows: Sequence[Row], name: str) -> Series:
    """Steps and values of a term where it can be drawn on a logarithmic scale."""
    known = [(row["step"], row[name]) for row in rows if (row.get(name) or 0.0) > 0.0]
    steps, values = np.array(known, dtype=float).reshape(-1, 2).T
    return steps, values


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Geometric mean over a moving window, narrower at both ends."""
    reach = max(1, len(values) // SMOOTHING)
    total = np.concatenate(([0.0], np.cumsum(np.log(values))))
    index = np.arange(len(values))
    low, high = np.maximum(index - reach, 0), np.minimum(index + reach + 1, len(values))
    return np.exp((total[high] - total[low]) / (high - low))


def _draw_term(axis: Axes, term: str, levels: Mapping[str, Series], stages: Sequence[int]) -> None:
    for index, (name, series) in enumerate(levels.items()):
        steps, values, curve = by_stage(*series, stages)
        level = split_level(name)[1]
        axis.plot(steps, values, color=f"C{index}", alpha=0.25, linewidth=0.7)
        axis.plot(steps, curve, color=f"C{index}", linewidth=1.6, label=f"level {level}")
    axis.set(yscale="log", title=term.replace("_", " "), xlabel="step")
    axis.tick_params(labelbottom=True)
    axis.grid(True, color="0.9")
    axis.spines[["top", "right"]].set_visible(False)
    if len(levels) > 1:
        axis.legend(frameon=False, fontsize=8)


def by_stage(steps: np.ndarray, values: np.ndarray, stages: Sequence[int]) -> tuple[np.ndarray, ...]:
    """Steps, values and the smoothed curve, with a NaN after each stage, so that no line crosses stages without values.

    Stages are smoothed one by one: a new image size changes every term at once.
    """
    places = np.searchsorted(steps, list(stages))
    parts = zip(np.split(steps, places), np.split(values, places), strict=True)
    columns = [(part, numbers, _smoothed(numbers)) for part, numbers in parts]
    return tuple(np.concatenate([np.append(part, np.nan) for part in column]) for column in zip(*columns, strict=True))


def _mark_stages(axes: Sequence[Axes], columns: int, stages: Mapping[int, str]) -> None:
    """A line where each stage begins; in the top row upright labels, which stay apart however close the stages are.

    They stand above the curves. Where a stage begins after the last step, there is neither.
    """
    if not axes:
        return
    first, last = axes[0].get_xlim()[0], max(axis.dataLim.x1 for axis in axes)
    for axis in axes[:columns] if stages else ():
        low, high = axis.get_ylim()
        axis.set_ylim(low, high * (high / low) ** LABEL_ROOM)
    for step, name in ((step, name) for step, name in stages.items() if first < step < last):
        for axis in axes:
            axis.axvline(step, color="0.5", linewidth=0.8, linestyle="--")
        for axis in axes[:columns]:
            place = {"xycoords": ("data", "axes fraction"), "xytext": (2, -2), "textcoords": "offset points"}
            axis.annotate(name, (step, 1.0), **place, va="top", rotation=90, fontsize=7, color="0.4")
