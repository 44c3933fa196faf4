"""How tyro shows what commands take: rules for all of them, used where the command line is parsed.

Where nothing is given by default, the help says in words what happens then; `(default: None)` and `{None}|PATH` would
only add noise. Texts are joined to paragraphs, as lines end elsewhere on a terminal than in a docstring.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_type_hints

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

RULES = ConstructorRegistry()
"""The rules, for `tyro.cli(registry=RULES)`."""
PACKAGE = __name__.partition(".")[0]
AS_USUAL: Any = object()
"""Among a type's markers: tyro's own rule is asked."""


def paragraphs(text: str) -> str:
    """A text of a docstring, with a line for each paragraph."""
    return "\n\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", text.strip()))


def summary(function: Callable[..., Any]) -> str:
    """What a docstring says before its sections, in paragraphs."""
    return paragraphs(docstring_parser.parse_from_object(function).description or "")


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


@functools.cache
def documented(owner: Any) -> dict[str, str]:
    """All such texts by name, in paragraphs."""
    owners = [kind for kind in owner.__mro__[::-1] if kind is not object] if inspect.isclass(owner) else [owner]
    documents = [docstring_parser.parse_from_object(each) for each in owners]
    return {each.arg_name: paragraphs(each.description) for doc in documents for each in doc.params if each.description}


def caller(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, called by keywords alone."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(**values: Any) -> Any:
        bound = signature.bind_partial()
        bound.arguments.update({name: values[name] for name in signature.parameters if name in values})
        return function(*bound.args, **bound.kwargs)

    return call
