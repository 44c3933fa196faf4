"""What was measured as tables: for the terminal, CSV, JSON, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from consistent4d_ns.evaluation.images import SIDE
from consistent4d_ns.evaluation.measuring import ObjectScores, Values, overall
from consistent4d_ns.evaluation.orders import ORDERS


@dataclass(frozen=True)
class Column:
    """How a metric is shown."""

    title: str
    """Heading."""
    decimals: int
    """Digits behind the point."""
    better: str
    """An arrow that points to better values."""


COLUMNS = {
    "clip": Column("CLIP", 4, "↑"),
    "lpips": Column("LPIPS", 4, "↓"),
    "ssim": Column("SSIM", 4, "↑"),
    "psnr": Column("PSNR", 2, "↑"),
    "fvd": Column("FVD", 1, "↓"),
    "fvd_v": Column("FVD-V", 1, "↓"),
    "fvd_d": Column("FVD-D", 1, "↓"),
    "fv4d": Column("FV4D", 1, "↓"),
}
"""All metrics, in their order."""
PROTOCOLS = {
    "original": "As the original's scripts compute it (comparable with published tables)",
    "correct": "Correct: true number of views, fixed data range",
}
"""The two ways of computing."""
CORRECT_FVD = ", FVD between sets of clips (FVD is FVD-F)"
"""What belongs to the correct way where FVD was computed."""
MEAN = "mean"
"""Name of the row over all objects, and of an object over its views."""
NOTHING = "-"
"""Shown where a value could not be computed."""


@dataclass(frozen=True)
class Row:
    """Values of an object, or of one of its views."""

    object: str
    """Name of the object, or `MEAN`."""
    view: str
    """Name of the view, or `MEAN`."""
    protocol: str
    """Key of `PROTOCOLS`."""
    values: Values
    """Values by metric."""


def rows(objects: Sequence[ObjectScores]) -> list[Row]:
    """All values: views, objects, and over all objects."""
    found = [
        Row(of.name, view, protocol, values)
        for of in objects
        for view, by_protocol in of.views.items()
        for protocol, values in by_protocol.items()
    ]
    found += [Row(of.name, MEAN, protocol, getattr(of, protocol)) for of in objects for protocol in PROTOCOLS]
    return found + [Row(MEAN, MEAN, protocol, values) for protocol, values in overall(objects).items()]


def title(found: Sequence[Row], protocol: str) -> str:
    """Heading of a protocol's table: how its values were computed, and at which size images were compared."""
    metrics = {name for row in found if row.protocol == protocol for name in row.values}
    clips = CORRECT_FVD if protocol == "correct" and metrics & set(ORDERS) else ""
    size = f"; images compared at {SIDE} x {SIDE} pixels" if metrics - set(ORDERS) else ""
    return f"{PROTOCOLS[protocol]}{clips}{size}"


def shown(metric: str, values: Values) -> str:
    """A value with its decimals."""
    return f"{values[metric]:.{COLUMNS[metric].decimals}f}" if metric in values else NOTHING


def table(found: Sequence[Row], protocol: str, with_views: bool = True) -> list[list[str]]:
    """Headings and rows of a protocol: each object's views, then the object itself; last all objects, if several."""
    own = [row for row in found if row.protocol == protocol]
    metrics = [name for name in COLUMNS if any(name in row.values for row in own)]
    names = list(dict.fromkeys(row.object for row in own if row.object != MEAN))
    lines = [["object", "view", *(f"{COLUMNS[name].title} {COLUMNS[name].better}" for name in metrics)]]
    for name in names:
        mine = sorted((row for row in own if row.object == name), key=lambda row: row.view == MEAN)
        lines += [
            [name, row.view, *(shown(metric, row.values) for metric in metrics)]
            for row in mine
            if with_views or row.view == MEAN
        ]
    lines += [
        [f"all {len(names)}", "", *(shown(metric, row.values) for metric in metrics)]
        for row in own
        if row.object == MEAN and len(names) > 1
    ]
    return lines if with_views else [[line[0], *line[2:]] for line in lines]


def as_markdown(found: Sequence[Row]) -> str:
    """A table for each protocol."""
    return "\n".join(line for protocol in PROTOCOLS for line in _markdown_table(found, protocol))


def _markdown_table(found: Sequence[Row], protocol: str) -> Iterator[str]:
    head, *body = table(found, protocol)
    yield f"**{title(found, protocol)}**\n"
    for line in (head, ["---"] * len(head), *body):
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |"
    yield ""


def as_latex(found: Sequence[Row]) -> str:
    """A tabular for each protocol, for the package booktabs: objects, and all of them, without views."""
    return "\n".join(line for protocol in PROTOCOLS for line in _latex_table(found, protocol))


def _latex_table(found: Sequence[Row], protocol: str) -> Iterator[str]:
    head, *body = table(found, protocol, with_views=False)
    yield f"% {title(found, protocol)}; needs \\usepackage{{booktabs}}"
    yield f"\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}"
    yield "\\toprule"
    yield _latex_row([cell.replace("↑", "$\\uparrow$").replace("↓", "$\\downarrow$") for cell in head])
    yield "\\midrule"
    for number, line in enumerate(body, start=1):
        if number == len(body) > 1:
            yield "\\midrule"
        yield _latex_row([_latex_text(line[0]), *line[1:]])
    yield "\\bottomrule\n\\end{tabular}\n"


def _latex_row(cells: Sequence[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _latex_text(text: str) -> str:
    """A name with LaTeX's own characters escaped."""
    special = {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"}
    return "".join(special.get(char, f"\\{char}" if char in "_%&#${}" else char) for char in text)


def as_csv(found: Sequence[Row]) -> str:
    """A line for each object or view and protocol, with values in full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    metrics = [name for name in COLUMNS if any(name in row.values for row in found)]
    writer.writerow(["object", "view", "protocol", *metrics])
    for row in found:
        writer.writerow([row.object, row.view, row.protocol, *(row.values.get(name, "") for name in metrics)])
    return text.getvalue()


def as_json(found: Sequence[Row], notes: Sequence[str], about: dict[str, Any]) -> str:
    """All values, what was not as it should be, and what was compared. JSON has no infinity: "inf" stands for it."""
    values = [
        {
            "object": row.object,
            "view": row.view,
            "protocol": row.protocol,
            **{name: value if math.isfinite(value) else str(value) for name, value in row.values.items()},
        }
        for row in found
    ]
    content = {
        **about,
        "protocols": {name: title(found, name) for name in PROTOCOLS},
        "notes": list(notes),
        "values": values,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
