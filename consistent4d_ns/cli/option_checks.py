"""Command lines that a batch will run later, checked by their own parsers now; nothing is run."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import re
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import tyro

from consistent4d_ns.batching.jobs import Options, nearest, option_words
from consistent4d_ns.batching.spelling import plainly
from consistent4d_ns.cli.eval import evaluate
from consistent4d_ns.cli.export import mesh, points, usd
from consistent4d_ns.cli.export_web import web
from consistent4d_ns.cli.prepare import prepare
from consistent4d_ns.cli.render import render
from consistent4d_ns.cli.splats import splats
from consistent4d_ns.errors import InputError

COMMANDS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "prepare": (prepare, ("a", "b")),
    "evaluate": (evaluate, ("--gt", "a", "--run", "b")),
    "web": (web, ("a", "b")),
    "mesh": (mesh, ("a", "b")),
    "points": (points, ("a", "b")),
    "splats": (splats, ("a", "b")),
    "usd": (usd, ("a", "b")),
    "usdz": (usd, ("a", "b")),
    "video": (render, ("a", "b")),
}
"""What is called in the steps of a job, by their names, and what it cannot do without; trainings are checked apart."""


def plain_options(step: str, options: Options) -> Options:
    """The options of a step, checked and spelt plainly.

    Args:
        step: Its name, of `COMMANDS`.
        options: Its options.

    Raises:
        InputError: one is unknown or cannot have its value.
    """
    _check(step, tuple(option_words(options)))
    plain: dict[str, str | tuple[str, ...]] = {}
    for name, value in options.items():
        several = not isinstance(value, str)
        values = plainly(value if several else [value], partial(_meaning, step, name, several))
        plain[name] = tuple(values) if several else values[0]
    return plain


def _meaning(step: str, name: str, several: bool, values: Sequence[str]) -> Any:
    """What a command is called with where an option has these values.

    Raises:
        InputError: it cannot have them.
    """
    called, refusal = _outcome(step, tuple(option_words({name: tuple(values) if several else values[0]})))
    if refusal:
        raise InputError(refusal)
    return called


def _check(step: str, words: tuple[str, ...]) -> None:
    """Raises: InputError: an option is unknown or cannot have its value."""
    known = _names(step)
    for word in words:
        if word.startswith("--") and word not in known:
            raise InputError(f"{step}: {nearest(word[2:], [name[2:] for name in known])}")
    if refusal := _outcome(step, words)[1]:
        raise InputError(f"{step}: {' '.join(words)} cannot be used: {refusal}")


@cache
def _names(step: str) -> tuple[str, ...]:
    """The options of a command, of which its help tells."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        _parse(step, ("--help",))
    return tuple(dict.fromkeys(re.findall(r"(?<![\w-])--[a-z][\w-]*", said.getvalue())))


@cache
def _outcome(step: str, words: tuple[str, ...]) -> tuple[Any, str]:
    """What a command is called with, and why its parser refuses options, in a line; empty if it does not."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            return _parse(step, words), ""
    except SystemExit:
        return None, _reason(said.getvalue())


def _reason(said: str) -> str:
    """The reason in a parser's message: what stands between its title and a rule, without the box around it."""
    lines = [line.strip(" │╭╮╰╯─") for line in said.splitlines()]
    lines = ["" if not line.strip("-") else line for line in lines]
    title = next((place for place, line in enumerate(lines) if line), 0)
    texts = itertools.dropwhile(lambda line: not line, lines[title + 1 :])
    return " ".join(itertools.takewhile(bool, texts)) or "its parser refuses it."


def _parse(step: str, words: tuple[str, ...]) -> Any:
    """Parse a command line and call nothing; what the command would be called with."""
    command, needed = COMMANDS[step]
    return tyro.cli(functools.wraps(command)(lambda *places, **names: (places, names)), args=[*needed, *words])
