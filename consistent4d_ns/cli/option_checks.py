"""Command lines that a batch will run later, checked by their own parsers now; nothing is run."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import tyro

from consistent4d_ns.batching.jobs import nearest
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


def check_options(step: str, words: tuple[str, ...]) -> None:
    """Check the options of a step.

    Args:
        step: Its name, of `COMMANDS`.
        words: Its options as they follow the command.

    Raises:
        InputError: one is unknown or cannot have its value.
    """
    known = _names(step)
    for word in words:
        if word.startswith("--") and word not in known:
            raise InputError(f"{step}: {nearest(word[2:], [name[2:] for name in known])}")
    if refusal := _refusal(step, words):
        raise InputError(f"{step}: {' '.join(words)} cannot be used: {refusal}")


@cache
def _names(step: str) -> tuple[str, ...]:
    """The options of a command, of which its help tells."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        _parse(step, ("--help",))
    return tuple(dict.fromkeys(re.findall(r"(?<![\w-])--[a-z][\w-]*", said.getvalue())))


@cache
def _refusal(step: str, words: tuple[str, ...]) -> str:
    """Why a command's parser refuses options, in a line; empty if it does not."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            _parse(step, words)
    except SystemExit:
        return _reason(said.getvalue())
    return ""


def _reason(said: str) -> str:
    """The reason in a parser's message: what stands between its title and a rule, without the box around it."""
    lines = [line.strip(" │╭╮╰╯─") for line in said.splitlines()]
    lines = ["" if not line.strip("-") else line for line in lines]
    title = next((place for place, line in enumerate(lines) if line), 0)
    texts = itertools.dropwhile(lambda line: not line, lines[title + 1 :])
    return " ".join(itertools.takewhile(bool, texts)) or "its parser refuses it."


def _parse(step: str, words: tuple[str, ...]) -> None:
    """Parse a command line and call nothing."""
    command, needed = COMMANDS[step]
    tyro.cli(functools.wraps(command)(lambda *_, **__: None), args=[*needed, *words])
