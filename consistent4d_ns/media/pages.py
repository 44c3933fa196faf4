"""Pages of one file: HTML, style and script that lie beside the code, filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from consistent4d_ns.errors import InputError

if TYPE_CHECKING:
    from importlib.abc import Traversable

SUFFIXES = (".html", ".htm")
"""How the name of a page ends."""
PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")
"""What is replaced in a page."""


def check_page_name(out: Path, option: str = "") -> None:
    """Check that a file can be a page by its name.

    Args:
        out: The file.
        option: The option that named it, if one did.

    Raises:
        InputError: it cannot.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise InputError(f"{f'{option} {out}'.strip()} cannot be a page: give a name that ends in .html.")


def filled(template: Traversable, parts: Mapping[str, str]) -> str:
    """A template with every `{{name}}` replaced by the part of that name, in which nothing is replaced again."""
    return PLACEHOLDER.sub(lambda match: parts[match[1]], template.read_text(encoding="utf-8"))
