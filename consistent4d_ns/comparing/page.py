"""The page of a comparison: one file that loads nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from html import escape
from importlib.resources import files

from consistent4d_ns import __version__
from consistent4d_ns.comparing.curves import chart
from consistent4d_ns.comparing.differences import differences, short_names
from consistent4d_ns.comparing.looking import Comparison, Input, Seen
from consistent4d_ns.files.checkpoints import is_last
from consistent4d_ns.media.pages import filled

ROOM = files("consistent4d_ns.comparing")
"""Where the parts of the page are that do not depend on the runs."""
COLOURS = 8
"""Colours of curves; later runs have the same colours with other dashes."""
MANY = 6
"""With more runs than these, pictures are small at first."""
SHORT = 3
"""Options that differ which are named beside a run's pictures, at most; the table has all."""


@dataclass(frozen=True)
class Column:
    """A column of the table of figures."""

    title: str
    value: Callable[[Seen], float | str | None]
    """What the table is sorted by; None where it is not known."""
    text: Callable[[Seen], str]
    """How it is written."""
    more_is_better: bool = False
    """Whether the greatest value is the best; otherwise that cannot be said."""


def _measured(title: str, which: str, name: str, decimals: int) -> Column:
    """A column of a figure for which more is better."""

    def value(run: Seen) -> float | None:
        return getattr(getattr(run, which), name, None)

    return Column(title, value, lambda run: f"{value(run):.{decimals}f}", True)


def _steps(run: Seen) -> str:
    trained, planned = run.step + 1, run.config.max_num_iterations
    return f"{trained}" if is_last(run.step, planned) else f"{trained} of {planned}"


def _duration(run: Seen) -> str:
    assert run.effort is not None
    seconds = run.effort.seconds
    since = f" from step {run.effort.first_step} on" if run.effort.first_step else ""
    return (f"{seconds:.0f} s" if seconds < 60 else f"{seconds / 60:.1f} min") + since


FIGURES = (
    _measured("PSNR, input view (dB)", "input_figures", "psnr", 2),
    _measured("IoU, input view", "input_figures", "iou", 3),
    _measured("PSNR, novel views (dB)", "novel_figures", "psnr", 2),
    _measured("SSIM, novel views", "novel_figures", "ssim", 3),
    _measured("IoU, novel views", "novel_figures", "iou", 3),
    Column("steps", lambda run: run.step + 1, _steps),
    Column("training", lambda run: run.effort and run.effort.seconds, _duration),
    Column("device", lambda run: run.effort and run.effort.device, lambda run: str(run.effort and run.effort.device)),
    Column("peak memory (GiB)", lambda run: run.effort and run.effort.peak_memory, lambda run: f"{_gib(run):.2f}"),
)
"""The columns of the table; those of which nothing is known are left out."""


def _gib(run: Seen) -> float:
    assert run.effort is not None
    return (run.effort.peak_memory or 0) / 2**30


def page(comparison: Comparison, title: str, notices: Sequence[str] = (), author: str = "compare") -> str:
    """The page as HTML.

    Args:
        comparison: What it shows.
        title: Its heading.
        notices: What else has to be said, one paragraph each.
        author: The subcommand that writes it.
    """
    changes = differences([run.config for run in comparison.runs])
    parts = {
        "title": escape(title),
        "author": escape(f"consistent4d {author}"),
        "about": escape(f"consistent4d_ns {__version__}, {date.today().isoformat()}"),
        "style": (ROOM / "page.css").read_text(encoding="utf-8"),
        "script": (ROOM / "page.js").read_text(encoding="utf-8"),
        "runs_style": "".join(map(_run_style, range(len(comparison.runs)))),
        "notices": "".join(
            f'<p class="notice" role="note">{escape(text)}</p>' for text in (*_notices(comparison, author), *notices)
        ),
        "cards": _cards(comparison, changes),
        "figures": _figures_table(comparison),
        "options": _options_table(comparison, changes),
        "legend": "".join(map(_legend_entry, range(len(comparison.runs)), comparison.runs)),
        "charts": _charts(comparison.runs),
        "small": " selected" if len(comparison.runs) > MANY else "",
        "medium": "" if len(comparison.runs) > MANY else " selected",
        "last": str(comparison.film.frames - 1),
        "setting": _setting(comparison),
        "video": comparison.video,
    }
    return filled(ROOM / "page.html", parts)


def is_page(text: str, author: str) -> bool:
    """Whether a file's contents are a page that this subcommand has written."""
    return f'<meta name="generator" content="consistent4d {author}">' in text[:2000]


def _setting(comparison: Comparison) -> str:
    """What the script has to know, as JSON."""
    film = comparison.film
    return json.dumps({"frames": film.frames, "fps": film.fps, "size": film.size, "columns": comparison.columns})


def _run_style(number: int) -> str:
    dashes = ("none", "6 3", "2 3", "8 3 2 3")[number // COLOURS % 4]
    return f'[data-run="{number}"]{{--run:var(--colour-{number % COLOURS});--dashes:{dashes}}}'


def _notices(comparison: Comparison, author: str) -> list[str]:
    """What keeps the runs from being compared fairly; the runs of a batch are not there to be compared."""
    said = []
    if len(comparison.inputs) > 1 and author != "batch":
        used = {key: ", ".join(run.label for run in comparison.runs if run.data == key) for key in comparison.inputs}
        listed = "; ".join(f"{_frames(one)}: {used[key]}" for key, one in comparison.inputs.items())
        said.append(
            f"These runs were not trained on the same frames, so their figures and losses cannot be compared. {listed}."
            " Videos are in step by the share of time that has passed."
        )
    short = [
        f"{run.label} ({_steps(run)} steps)"
        for run in comparison.runs
        if not is_last(run.step, run.config.max_num_iterations)
    ]
    if short:
        said.append(f"Not trained to the end: {', '.join(short)}.")
    return said


def _frames(one: Input) -> str:
    return f"{one.name} ({one.frames} {'frame' if one.frames == 1 else 'frames'}, trained at {one.size} x {one.size})"


def _cards(comparison: Comparison, changes: Mapping[str, Sequence[str]]) -> str:
    """Every run's pictures, each input video before those of the first run that was trained on it."""
    short, waiting = short_names(list(changes)), dict(comparison.inputs)
    cards = []
    for number, run in enumerate(comparison.runs):
        if run.data in waiting:
            cards.append(_input_card(waiting.pop(run.data), several=len(comparison.inputs) > 1))
        captions = ("input view", "orbit")
        pictures = "".join(
            _picture(place, f"{run.label}, {caption}", caption)
            for place, caption in zip(run.places, captions, strict=True)
        )
        varied = [f"{short[name]} {texts[number]}" for name, texts in changes.items()]
        shown = ", ".join(varied[:SHORT]) + (f" and {len(varied) - SHORT} more" if len(varied) > SHORT else "")
        cards.append(_card(f' data-run="{number}"', run.label, shown, pictures, _summary(run)))
    return "".join(cards)


def _input_card(one: Input, several: bool) -> str:
    pictures = _picture(one.place, f"Input video, {_frames(one)}", "as it was filmed")
    return _card("", f"Input{f' {one.name}' if several else ''}", _frames(one), pictures, "")


def _card(run: str, title: str, subtitle: str, pictures: str, summary: str) -> str:
    swatch = '<span class="swatch"></span>' if run else ""
    return (
        f'<figure class="card"{run}><figcaption><h3>{swatch}{escape(title)}</h3><p>{escape(subtitle)}</p></figcaption>'
        f'<div class="pictures">{pictures}</div>{f"<p>{escape(summary)}</p>" if summary else ""}</figure>'
    )


def _picture(place: int, description: str, caption: str) -> str:
    return (
        f'<div class="picture"><canvas data-place="{place}" role="img" aria-label="{escape(description)}"></canvas>'
        f"<span>{escape(caption)}</span></div>"
    )


def _summary(run: Seen) -> str:
    """A run's figures in a line."""
    seen = run.input_figures and f"input view {run.input_figures.psnr:.2f} dB"
    novel = run.novel_figures and f"novel views {run.novel_figures.psnr:.2f} dB"
    return ", ".join(filter(None, (seen, novel)))


def _figures_table(comparison: Comparison) -> str:
    """The rows of the table of figures, with its heading."""
    runs, fair = comparison.runs, len(comparison.inputs) == 1 and len(comparison.runs) > 1
    columns = [column for column in FIGURES if any(column.value(run) is not None for run in runs)]
    heads = "".join(
        f'<th scope="col" aria-sort="none"><button type="button" class="sort">{escape(column.title)}</button></th>'
        for column in columns
    )
    bests = [_best(column, runs) if fair else None for column in columns]
    rows = "".join(
        f'<tr data-run="{number}"><th scope="row"><span class="swatch"></span>{escape(run.label)}</th>'
        + "".join(_cell(column, run, best) for column, best in zip(columns, bests, strict=True))
        + "</tr>"
        for number, run in enumerate(runs)
    )
    return f'<thead><tr><th scope="col">run</th>{heads}</tr></thead><tbody>{rows}</tbody>'


def _best(column: Column, runs: Sequence[Seen]) -> str | None:
    """How the best value of a column is written, so that what looks the same is marked the same."""
    known = [run for run in runs if column.value(run) is not None]
    if not (column.more_is_better and known):
        return None
    return column.text(max(known, key=lambda run: float(column.value(run) or 0.0)))


def _cell(column: Column, run: Seen, best: str | None) -> str:
    value = column.value(run)
    if value is None:
        return "<td>-</td>"
    text = escape(column.text(run))
    return (
        f'<td data-value="{escape(str(value))}">{f"<strong>{text}</strong>" if column.text(run) == best else text}</td>'
    )


def _options_table(comparison: Comparison, changes: Mapping[str, Sequence[str]]) -> str:
    """A row for every option that differs, or a sentence."""
    if not changes:
        several = len(comparison.runs) > 1
        return "<p>These runs were trained with the same options.</p>" if several else "<p>There is one run only.</p>"
    heads = "".join(
        f'<th scope="col" data-run="{number}"><span class="swatch"></span>{escape(run.label)}</th>'
        for number, run in enumerate(comparison.runs)
    )
    rows = "".join(
        f'<tr><th scope="row"><code>{escape(name).replace(".", ".<wbr>")}</code></th>'
        + "".join(f"<td>{escape(t)}</td>" for t in texts)
        + "</tr>"
        for name, texts in changes.items()
    )
    table = f'<thead><tr><th scope="col">option</th>{heads}</tr></thead><tbody>{rows}</tbody>'
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Options that differ"><table>{table}</table></div>'
    )


def _legend_entry(number: int, run: Seen) -> str:
    line = '<svg viewBox="0 0 28 8" aria-hidden="true"><path class="curve" d="M1 4H27"/></svg>'
    opening = f'<button type="button" class="entry" data-run="{number}" aria-pressed="false">'
    return f"{opening}{line}{escape(run.label)}</button>"


def _charts(runs: Sequence[Seen]) -> str:
    """A chart for every term that any run has."""
    stages = runs[0].stages if all(list(run.stages) == list(runs[0].stages) for run in runs) else {}
    charts, last = [], int(max((curve.last_step for run in runs for curve in run.curves.values()), default=0))
    for term in dict.fromkeys(term for run in runs for term in run.curves):
        curves = {number: run.curves[term] for number, run in enumerate(runs) if term in run.curves}
        name = escape(term.replace("_", " "))
        picture = chart(curves, last, list(stages), f"{name} by training step")
        charts.append(f'<figure class="chart"><figcaption>{name}</figcaption>{picture}</figure>')
    return "".join(charts) or "<p>No losses are recorded in these runs' folders.</p>"
