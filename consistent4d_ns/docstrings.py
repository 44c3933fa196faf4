"""What docstrings say about options, as paragraphs: lines end elsewhere on a terminal than in a docstring."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Collection
from typing import Any

import docstring_parser


def is_help(arguments: Collection[str]) -> bool:
    """Whether the arguments of a command ask for its help."""
    return not {"-h", "--help"}.isdisjoint(arguments)


def paragraphs(text: str) -> str:
    """A text of a docstring, with a line for each paragraph."""
    return "\n\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", text.strip()))


@functools.cache
def documented(owner: Any) -> dict[str, str]:
    """What the docstrings of a class and those it inherits from, or of a function, say about options, by name."""
    owners = [kind for kind in owner.__mro__[::-1] if kind is not object] if inspect.isclass(owner) else [owner]
    documents = [docstring_parser.parse_from_object(each) for each in owners]
    return {each.arg_name: paragraphs(each.description) for doc in documents for each in doc.params if each.description}


def show_paragraphs(config: Any) -> None:
    """Let tyro show the options of a configuration, a dataclass, and of all of its parts in paragraphs.

    By itself it takes the indentation of a docstring's lines for the beginning of something new, and ends a line there.
    """
    if isinstance(config, dict):
        for part in config.values():
            show_paragraphs(part)
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        return
    for field in dataclasses.fields(config):
        if text := documented(type(config)).get(field.name):
            field.metadata = {**field.metadata, "help": text}  # pyright: ignore[reportAttributeAccessIssue]
        show_paragraphs(getattr(config, field.name))
