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
    files: Mapping[str, str]
    """Digest of each file's contents by its name, which stays the same where files are copied or touched."""

    @classmethod
    def parsed(cls, values: Any) -> Fingerprint:
        """What `dataclasses.asdict` made of one; raises TypeError or LookupError if the values are none."""
        stamp, files = values["stamp"], dict(values["files"])
        if not all(isinstance(text, str) for text in (stamp, *files.values())):
            raise TypeError("no fingerprint")
        return cls(stamp, files)


def fingerprint(files: Mapping[str, Path], earlier: Fingerprint | None = None) -> Fingerprint:
    """The fingerprint of files by name. One that cannot be read counts as missing.

    Args:
        files: The files, all of which are read, unless nothing has changed.
        earlier: A fingerprint of files; returned, and no file is read, where names, sizes and times are what they were.
    """
    stamp = _stamp(files)
    if earlier is not None and stamp == earlier.stamp:
        return earlier
    return Fingerprint(stamp, _digests(tuple(files.items()), stamp))


def differing(one: Fingerprint, other: Fingerprint) -> list[str]:
    """Names of the files whose contents are not the same, or that only one of two fingerprints has, in order."""
    names = one.files.keys() | other.files.keys()
    return sorted(name for name in names if one.files.get(name, MISSING) != other.files.get(name, MISSING))


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
def _digests(files: tuple[tuple[str, Path], ...], stamp: str) -> dict[str, str]:
    """Digests of contents by name; the same files with the same stamp are read once."""
    return {name: _digest(path) for name, path in files}


def _digest(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    try:
        if not path.is_file():  # Reading a named pipe would wait for ever.
            return MISSING
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
    except OSError:
        return MISSING
    return digest.hexdigest()
