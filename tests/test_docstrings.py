"""Help of `ns-train` is in paragraphs, whatever the lines of docstrings."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import tyro

from consistent4d_ns.docstrings import show_paragraphs
from consistent4d_ns.method_configs import PRESETS


@dataclasses.dataclass
class Options:
    """Some options."""

    first: int = 1
    """What the first one
    does, with a
    `second` one.

    Further
    3 words."""


def test_lines_of_a_docstring_are_joined(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    options = Options()
    show_paragraphs({"one": options})
    with pytest.raises(SystemExit):
        tyro.cli(Options, args=["--help"])
    said = " ".join(line.strip(" │") for line in capsys.readouterr().out.splitlines())
    assert "What the first one does, with a `second` one.  Further 3 words." in said


def texts(config: Any) -> Iterator[str]:
    for field in dataclasses.fields(config):
        yield field.metadata.get("help", "")
        part = getattr(config, field.name)
        if dataclasses.is_dataclass(part) and not isinstance(part, type):
            yield from texts(part)


def test_all_options_of_a_preset_have_paragraphs() -> None:
    config = deepcopy(PRESETS[0].config)
    show_paragraphs(config)
    found = list(texts(config))
    assert sum(map(bool, found)) > 100
    assert not any("\n" in text.replace("\n\n", "") for text in found)
