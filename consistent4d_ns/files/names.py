"""Names of files, as people and files of others give them."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path, PurePosixPath, PureWindowsPath

from consistent4d_ns.errors import InputError

LONGEST = 255
"""Bytes of a file name that all systems allow."""


def is_plain_name(name: str) -> bool:
    """Whether a text is the name of something in a folder, on every system: no path, and nothing unprintable."""
    if not name.isprintable() or not 0 < len(name.encode("utf-8", "surrogatepass")) <= LONGEST:
        return False
    return name not in (".", "..") and PurePosixPath(name).name == name == PureWindowsPath(name).name


def expanded(path: Path) -> Path:
    """The path with a leading `~` replaced; a shell leaves it in `--data=~/frames`.

    Raises:
        InputError: There is no such user.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise InputError(f"{path} names an unknown user: give the full path") from None


def absolute(path: Path) -> Path:
    """The absolute path without `.` and `..`, the same for every spelling.

    Links stay as they are, so that what they lead to may be moved; but where `..` follows one, it leads to elsewhere
    than the names say, and all links are replaced by what they lead to.
    """
    plain = Path(os.path.abspath(path))
    with suppress(OSError, RuntimeError):  # Links that lead to themselves.
        return plain if ".." not in path.parts or plain.resolve() == path.resolve() else path.resolve()
    return path.absolute()
