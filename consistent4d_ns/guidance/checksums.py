"""Checksums of a prior's files, in the format of the `sha256sum` command."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path, PurePosixPath

from consistent4d_ns.errors import InputError
from consistent4d_ns.files.weight_files import mistaken_for_weights

LIST = "SHA256SUMS"
"""File name of the list, in the folder whose files it lists."""
UNLISTED = (LIST, "MODEL_CARD.md")
"""Files that are not listed: the list itself, and the model card, which may be edited."""
WEIGHT_SUFFIXES = (".safetensors", ".bin")
"""Binary files; the others are JSON."""
REMEDY = "get it again as it came: reinstall consistent4d_ns for the bundled prior, download another one or convert it"
"""What to do about a folder that differs from what was saved."""


def write_checksums(folder: Path) -> None:
    """List the digest of every file below `folder`, by its path relative to `folder`."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    lines = [f"{_sha256(folder / name)}  {name}\n" for name in names if name not in UNLISTED]
    (folder / LIST).write_text("".join(lines), encoding="utf-8", newline="\n")


def verify_checksums(folder: Path) -> None:
    """Compare every listed file with its digest, if `folder` has a list.

    Raises:
        InputError: A listed file is missing or differs, or the list itself is damaged; names `folder` and the file.
    """
    if not (folder / LIST).exists():
        return
    for name, digest in _read_list(folder).items():
        try:
            found = _sha256(folder / name)
        except OSError as error:
            raise InputError(f"{folder}: {name} is missing or unreadable ({error.strerror}); {REMEDY}.") from error
        if found != digest:
            if PurePosixPath(name).suffix in WEIGHT_SUFFIXES and (mistake := mistaken_for_weights(folder / name)):
                raise InputError(f"{folder}: {name} {mistake}.")
            raise InputError(f"{folder}: {name} does not match its checksum (truncated or altered); {REMEDY}.")


def _read_list(folder: Path) -> dict[str, str]:
    """Digest of each listed file, by its path relative to `folder`."""
    try:
        lines = (folder / LIST).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: {LIST} cannot be read; {REMEDY}.") from error
    entries = [re.fullmatch(r"([0-9a-f]{64}) [ *](.+)", line) for line in lines]
    listed = {entry[2]: entry[1] for entry in entries if entry and _lies_within(entry[2])}
    if not lines or len(listed) != len(lines):
        raise InputError(f"{folder}: {LIST} is not a list of sha256 digests and file names; {REMEDY}.")
    return listed


def _lies_within(name: str) -> bool:
    """Whether the relative path `name` stays inside its folder."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def _sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read a megabyte at a time."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
