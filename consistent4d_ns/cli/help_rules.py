"""How tyro shows what commands take: rules for all of them, used where the command line is parsed.

Where nothing is given by default, the help says in words what happens then; `(default: None)` and `{None}|PATH` would
only add noise. Texts are joined to paragraphs, as lines end elsewhere on a terminal than in a docstring.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import io
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from types import NoneType, UnionType
from typing import Annotated, Any, TextIO, Union, get_args, get_type_hints

import docstring_parser
import tyro
from tyro.constructors import (
    MISSING,
    MISSING_NONPROP,
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
    UnsupportedTypeAnnotationError,
)

from consistent4d_ns.cli.help_texts import NO_DEFAULT
from consistent4d_ns.docstrings import documented, paragraphs

RULES = ConstructorRegistry()
"""The rules, for `tyro.cli(registry=RULES)`."""
PACKAGE = __name__.partition(".")[0]
USAGE = "usage: "
"""How tyro begins the line that says how a command is used."""
NARROWEST = 20
"""Columns of the narrowest terminal that is filled: in fewer than eight or so, tyro adds spaces for ever."""
AS_USUAL: Any = object()
"""Among a type's markers: tyro's own rule is asked."""


def summary(function: Callable[..., Any]) -> str:
    """What a docstring says before its sections, in paragraphs."""
    return paragraphs(docstring_parser.parse_from_object(function).description or "")


@contextmanager
def folded() -> Iterator[None]:
    """Fold lines that are printed meanwhile at the width of the terminal, which would break them within words.

    All that tyro prints has this width, but for the description of a command, of which each paragraph is one line.
    """
    if (width := shutil.get_terminal_size().columns) < NARROWEST:
        width = NARROWEST
        os.environ["COLUMNS"] = str(width)
    terminal = sys.stdout
    said = Said(terminal)
    try:
        with redirect_stdout(said):
            yield
    finally:
        said.seek(0)
        for line in said.read().splitlines():
            is_text = len(line) > width and "\033" not in line  # What is coloured is longer than it looks.
            print(fold(line, width) if is_text else line, file=terminal)


def fold(line: str, width: int) -> str:
    """Lines of at most `width` characters, if no word is longer. Where it says how a command is used, a list of
    commands in braces is broken between them, and further lines are indented."""
    if not line.startswith(USAGE):
        return textwrap.fill(line, width, break_on_hyphens=False)
    spaced = line.replace(",", ", ")
    return textwrap.fill(spaced, width, subsequent_indent=" " * len(USAGE), break_on_hyphens=False)


class Said(io.TextIOWrapper):
    """Keeps what is printed, in the colours and characters that are for a terminal or a file."""

    def __init__(self, terminal: TextIO) -> None:
        """
        Args:
            terminal: Where it is to be printed.
        """
        super().__init__(io.BytesIO(), encoding=terminal.encoding or "utf-8")
        self._terminal = terminal

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._terminal.isatty()


@RULES.primitive_rule
def optional_values(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | UnsupportedTypeAnnotationError | None:
    """What is parsed as usual, but shown as `PATH` where it may be None."""
    kinds = get_args(info.type)
    if info.type_origin not in (Union, UnionType) or NoneType not in kinds or AS_USUAL in info.markers:
        return None
    given: Any = Union[tuple(kind for kind in kinds if kind is not NoneType)]  # noqa: UP007
    shown = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(given, info.markers))
    usual = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(info.type, info.markers | {AS_USUAL}))
    if isinstance(shown, UnsupportedTypeAnnotationError) or isinstance(usual, UnsupportedTypeAnnotationError):
        return usual
    return dataclasses.replace(usual, metavar=shown.metavar)


@RULES.struct_rule
def own_options(info: StructTypeInfo) -> StructConstructorSpec | None:
    """What commands and groups of options of this package take."""
    kind: Any = info.type
    if not getattr(kind, "__module__", "").startswith(PACKAGE):
        return None
    if inspect.isclass(kind) and dataclasses.is_dataclass(kind):
        return StructConstructorSpec(kind, tuple(fields_of_class(kind, info.default)))
    if inspect.isfunction(kind):
        return StructConstructorSpec(caller(kind), tuple(fields_of_function(kind)))
    return None


def fields_of_class(kind: Any, default: Any) -> Iterator[StructFieldSpec]:
    """The fields of a dataclass, with the values of an instance as defaults if there is one."""
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        if not is_missing(default):
            value = getattr(default, field.name)
        elif field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        else:
            value = MISSING_NONPROP if field.default is dataclasses.MISSING else field.default
        yield option(kind, field.name, hints[field.name], value)


def fields_of_function(function: Callable[..., Any]) -> Iterator[StructFieldSpec]:
    """The parameters of a function."""
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        kind = hints[name]
        if parameter.kind is parameter.POSITIONAL_ONLY:
            kind = Annotated[kind, tyro.conf.Positional]
        default = MISSING_NONPROP if parameter.default is parameter.empty else parameter.default
        yield option(function, name, kind, default)


def option(owner: Any, name: str, kind: Any, default: Any) -> StructFieldSpec:
    """One option. Of options that may be repeated tyro says so in place of a default."""
    repeated = tyro.conf.UseAppendAction in getattr(kind, "__metadata__", ())
    if default is None or (default == () and not repeated):
        kind = Annotated[kind, NO_DEFAULT]
    return StructFieldSpec(name, kind, default, functools.partial(help_text, owner, name))


def is_missing(default: Any) -> bool:
    """Whether no default is given."""
    return default is MISSING or default is MISSING_NONPROP


def help_text(owner: Any, name: str) -> str | None:
    """What the docstrings of a class and those it inherits from, or of a function, say about an option."""
    return documented(owner).get(name)


def caller(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, called by keywords alone."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(**values: Any) -> Any:
        bound = signature.bind_partial()
        bound.arguments.update({name: values[name] for name in signature.parameters if name in values})
        return function(*bound.args, **bound.kwargs)

    return call
