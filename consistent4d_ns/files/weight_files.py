"""Recognises files that are often mistaken for weight files or are cut off, and says what to do."""

from __future__ import annotations

import zipfile
from pathlib import Path

LOOKED_AT = 512
"""Bytes read from the beginning of a file to recognise it."""
QUOTED = 60
"""Characters of a text that a message quotes."""


def mistaken_for_weights(path: Path) -> str | None:
    """What a file is instead of weights, and the remedy, as the rest of a sentence; None if it may be a weight file.

    Weight files are binary. Text in their place is a Git LFS pointer, a page of a web site or a server's message.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        beginning = file.read(LOOKED_AT)
    if not beginning:
        return "is an empty file (zero bytes): download it again"
    try:
        text = beginning.decode("utf-8", errors="strict" if len(beginning) < LOOKED_AT else "ignore").strip()
    except UnicodeDecodeError:
        return None
    if not text or not all(character.isprintable() or character.isspace() for character in text):
        return None
    if text.startswith("version https://git-lfs.github.com/spec/"):
        return (
            "is a Git LFS pointer, not the weights it stands for: run `git lfs pull` in its repository, "
            "or download the file itself"
        )
    if text.lower().startswith(("<!doctype html", "<html")):
        return (
            "is a web page, not a weight file: download it again, from the address of the file itself "
            "(on the Hugging Face hub with /resolve/ instead of /blob/) and logged in where that is asked for"
        )
    return f"is text, not a weight file (it begins {' '.join(text.split())[:QUOTED]!r}): download it again"


def damage_of_weights(path: Path) -> str | None:
    """What is wrong with a weight file as far as a glance can tell, as the rest of a sentence; None if nothing is.

    Its beginning and length are looked at, not all of it: a file that was cut off is recognised, an altered one is not.
    """
    try:
        if (mistake := mistaken_for_weights(path)) is not None:
            return mistake
        is_whole = _is_whole_safetensors(path) if path.suffix == ".safetensors" else zipfile.is_zipfile(path)
    except OSError as error:
        return f"cannot be read ({error.strerror or error}): download it again"
    return None if is_whole else "is cut off or no weight file: download it again"


def _is_whole_safetensors(path: Path) -> bool:
    """Whether a file is as long as its header says; no tensor is read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np"):
            return True
    except SafetensorError:
        return False
