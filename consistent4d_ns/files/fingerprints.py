"""Whether files are still what they were: by their sizes and times, and where these differ, by their contents."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

BLOCK = 1 << 22
"""Bytes that are read at once."""
MISSING = "-"
"""Stands for what cannot be looked at."""


@dataclass(frozen=True)
class Fingerprint:
    """Of some files, each of which has a name that says what it is to whoever reads it."""

    stamp: str
    """Digest of names, sizes and times of change, for which no file is read."""
    content: str
    """Digest of names and contents, which stays the same where files are copied or touched."""

    @classmethod
    def parsed(cls, values: Any) -> Fingerprint:
        """What `dataclasses.asdict` made of one; raises TypeError or LookupError if the values are none."""
        stamp, content = values["stamp"], values["content"]
        if not (isinstance(stamp, str) and isinstance(content, str)):
            raise TypeError("no fingerprint")
        return cls(stamp, content)


def fingerprint(files: Mapping[str, Path]) -> Fingerprint:
    """The fingerprint of files by name; all of them are read. One that cannot be read counts as missing."""
    stamp = _stamp(files)
    return Fingerprint(stamp, _content(tuple(files.items()), stamp))


def is_unchanged(files: Mapping[str, Path], earlier: Fingerprint) -> bool:
    """Whether files are what they were when a fingerprint was taken; they are read where sizes or times differ."""
    stamp = _stamp(files)
    return stamp == earlier.stamp or _content(tuple(files.items()), stamp) == earlier.content


def _stamp(files: Mapping[str, Path]) -> str:
    digest = hashlib.sha256()
    for name, path in files.items():
        digest.update(f"{name}\0{_state(path)}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _state(path: Path) -> str:
    """Size and times of a file; the second time changes where a program sets the first one back."""
    try:
        found = path.stat()
    except OSError:
        return MISSING
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


@lru_cache(maxsize=4096)
def _content(files: tuple[tuple[str, Path], ...], stamp: str) -> str:
    """Digest of names and contents; the same files with the same stamp are read once."""
    digest = hashlib.sha256()
    for name, path in files:
        digest.update(f"{name}\0{_digest(path)}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        if not path.is_file():  # Reading a named pipe would wait for ever.
            return MISSING
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
    except OSError:
        return MISSING
    return digest.hexdigest()
