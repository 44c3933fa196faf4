"""YAML that people wrote: lists, mappings and texts, read with limits. No value is guessed, nothing is built."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from consistent4d_ns.errors import InputError

MAX_BYTES = 2**20
"""Largest file that is read: a thousand jobs of a batch have about a tenth of it."""

DEPTH = 20
"""Lists and mappings in one another."""


class _PlainLoader(yaml.BaseLoader):
    """Reads every value as the text that it is, so that `no`, `007` and `1e-3` stay what was written.

    Without aliases a file cannot be small and its content large.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise _refusal("it has an anchor or an alias (& or *): write the value where it is meant", event)
        if event.tag is not None:
            raise _refusal(f"it has a tag ({event.tag}): leave it out", event)
        if self._depth > DEPTH:
            raise _refusal("it is nested too deeply", event)
        self._depth += 1
        node = super().compose_node(parent, index)  # pyright: ignore[reportArgumentType]
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        found: dict[Hashable, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _refusal("a key is no text", key)
            if key.value in found:
                raise _refusal(f"{key.value} is given twice: leave out one of them", key)
            found[key.value] = self.construct_object(value, deep=True)
        return found


def _refusal(problem: str, place: Any) -> yaml.YAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=place.start_mark)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file of one document: lists, mappings and texts; None where it is empty.

    Raises:
        InputError: it cannot be read, is too large, is no YAML, has a key twice, or anchors, aliases or tags.
    """
    if not path.is_file():  # Reading a named pipe would wait for ever.
        raise InputError(f"{path} is not a file: give a YAML file.")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise InputError(f"{path} has {size / 2**20:.1f} MiB, and at most {MAX_BYTES / 2**20:g} are read: split it.")
    try:
        return yaml.load(path.read_text(encoding="utf-8-sig"), _PlainLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        said = [getattr(error, part, None) for part in ("context", "problem")]
        problem = ", ".join(filter(None, said)) or str(error)
        where = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{path}{where}: {' '.join(problem.split())}.") from error
    except ValueError as error:
        raise InputError(f"{path} cannot be read as text ({error}): save it in UTF-8.") from error
