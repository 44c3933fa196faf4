"""Writing results atomically: nothing is overwritten unasked, and no partial output remains."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consistent4d_ns.errors import InputError, printable
from consistent4d_ns.files.json_files import read_json
from consistent4d_ns.files.locks import FolderLock, is_locked

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

MANIFEST = "manifest.json"
"""File of a written folder that lists what belongs to it, so that replacing it touches nothing else."""
UNFINISHED = "unfinished"
"""Key of a manifest that is true while its files are being replaced, and stays so if that is cut off."""
AUTHOR = "consistent4d"
"""Our command; with its subcommand, the value of `written_by` in a manifest."""
PARTIAL = ".partial"
"""End of the names under which checkpoints are written until they are complete."""
SCRATCH = ".unfinished"
"""How the names of the folders end in which something is written until it is complete."""
MARKER = ".written-by-consistent4d"
"""File in such a folder that says that this program made it."""
PARTIAL_NAME = r"\d+-[0-9a-f]{8}"
"""What stands in the name of a checkpoint that is being written: the process, and eight random digits."""
ROOM = "make room, or give another place"
"""What to do where something cannot be written."""


@contextmanager
def new_file(path: Path, overwrite: bool = False, remedy: str = ROOM) -> Iterator[Path]:
    """A temporary path of the same name to write to; it becomes `path` when the block ends, and is removed if it fails.

    Args:
        path: The file.
        overwrite: Replace it if it exists.
        remedy: What to do where it cannot be written.

    Raises:
        InputError: `path` exists and `overwrite` is off, is no regular file, or cannot be written (no permission, disk
            full).
    """
    check_new_file(path, overwrite)
    with scratch_beside(path, remedy) as scratch:
        yield scratch / path.name
        flush_to_disk(scratch / path.name)
        (scratch / path.name).replace(path)


def write_values(path: Path, values: DataclassInstance) -> None:
    """Write a dataclass as JSON, in the place of an earlier file.

    Raises:
        InputError: it cannot be written.
    """
    with new_file(path, overwrite=True) as file:
        file.write_text(json.dumps(dataclasses.asdict(values), indent=1) + "\n", encoding="utf-8")


def check_new_file(path: Path, overwrite: bool = False) -> None:
    """Raises: InputError: `path` exists and `overwrite` is off, is no regular file, or cannot be looked at."""
    with refusals(path):
        if path.is_dir():
            raise InputError(f"{path} is a folder: give the name of a file.")
        if path.exists() and not path.is_file():  # A device, a pipe or a socket.
            raise InputError(f"{path} is no regular file: give the name of a file.")
        if (path.exists() or path.is_symlink()) and not overwrite:
            raise InputError(f"{path} exists: give another name, or --overwrite to replace it.")


@contextmanager
def new_folder(path: Path, command: str, overwrite: bool = False) -> Iterator[Path]:
    """An empty folder to write to; its files move to `path` when the block ends, and are removed if it fails.

    A manifest is added. Replacing an earlier folder removes the files of its manifest and nothing else; whoever is
    killed meanwhile leaves files of one of both, which `check_whole` refuses and the same command can replace.

    Args:
        path: The folder.
        command: The subcommand that writes it, such as "export mesh"; what another one has written is not replaced.
        overwrite: Replace an earlier output of the same subcommand.

    Raises:
        InputError: `path` holds something and `overwrite` is off; holds files that are not an earlier output of
            `command`, or have the name of a new one; is a file or a dangling link; or cannot be written (no permission,
            disk full).
    """
    earlier = check_new_folder(path, command, overwrite)
    path = path.resolve()  # "." has no name, and beside a link there may be another disk.
    with scratch_beside(_within(path) if path.is_mount() else path) as scratch:
        files = scratch / path.name
        files.mkdir()
        yield files
        names = sorted(str(file.relative_to(files)) for file in files.rglob("*") if file.is_file())
        _write_manifest(files / MANIFEST, command, names)
        if earlier or not _take_place(files, path, command):
            _exchange(files, path, command, earlier, names)


def _within(path: Path) -> Path:
    """Beside what the files of a folder are written that is a disk of its own: something of its name in it."""
    return path / path.name


def _write_manifest(file: Path, command: str, names: Iterable[str], **more: bool) -> None:
    manifest = {"written_by": f"{AUTHOR} {command}", "files": sorted(names), **more}
    file.write_text(json.dumps(manifest, indent=1) + "\n")


def _exchange(files: Path, path: Path, command: str, earlier: Iterable[str], names: Iterable[str]) -> None:
    """Put files into a folder in the place of earlier ones, one by one.

    Files of others may lie there, so that the folder cannot be exchanged. Until all is done, the manifest names all
    files, earlier and new, and says so.

    Raises:
        InputError: something of others has the name of a new file.
    """
    path.mkdir(exist_ok=True)
    _check_names(path, {*names} - {*earlier})
    meanwhile = files / f".{MANIFEST}"
    _write_manifest(meanwhile, command, {*earlier, *names}, **{UNFINISHED: True})
    flush_to_disk(meanwhile)
    meanwhile.replace(path / MANIFEST)
    flush_to_disk(path)
    for name in earlier:
        (path / name).unlink(missing_ok=True)
    for name in (*names, MANIFEST):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (files / name).replace(path / name)


def _check_names(path: Path, names: Iterable[str]) -> None:
    """Raises: InputError: what new files of a folder would be called is there, and no earlier output."""
    for name in sorted(names):
        places = (path / name, *(path / parent for parent in Path(name).parents[:-1]))
        if os.path.lexists(places[0]) or any(os.path.lexists(place) and not place.is_dir() for place in places[1:]):
            raise InputError(
                f"{places[0]} is in the way and not of the earlier output, so nothing is replaced: move it, or give "
                "another folder."
            )


def _take_place(files: Path, path: Path, command: str) -> bool:
    """Give a folder its name at once, if there is none of that name; whether that was possible.

    Raises:
        InputError: Another process has written something to `path` meanwhile.
    """
    with suppress(OSError):
        if not path.exists():
            files.rename(path)
            return True
    check_new_folder(path, command)
    return False


def check_new_folder(path: Path, command: str, overwrite: bool = False) -> list[str]:
    """Files of an earlier output of a subcommand in `path`, all inside of it; none if there is nothing.

    Raises:
        InputError: as `holds_something`, or `path` holds something that may not be replaced (see `new_folder`).
    """
    if not holds_something(path):
        return []
    if not overwrite:
        check_whole(path)
        raise InputError(f"{path} is not empty: give another folder, or --overwrite to replace an earlier output.")
    manifest = _manifest(path)
    names, ours = manifest.get("files"), manifest.get("written_by") == f"{AUTHOR} {command}"
    if not (ours and isinstance(names, list) and all(_is_inside(path, name) for name in names)):
        raise InputError(
            f"{path} holds files that are not an earlier output of `{AUTHOR} {command}`, so nothing is replaced: "
            "give another folder."
        )
    return names


def _is_inside(folder: Path, name: object) -> bool:
    """Whether something in a manifest is the name of a file in its folder."""
    if not isinstance(name, str) or "\0" in name:
        return False
    return (folder / name).resolve().is_relative_to(folder.resolve())


def _manifest(path: Path) -> dict[str, Any]:
    """What the manifest in a folder says; empty where there is none, or something else."""
    try:
        manifest = read_json(path / MANIFEST)
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def check_whole(path: Path) -> None:
    """Raises: InputError: a command was killed while it replaced the files in a folder, so that some are missing."""
    manifest = _manifest(path)
    author = str(manifest.get("written_by"))
    if manifest.get(UNFINISHED) is True and author.startswith(AUTHOR):
        raise InputError(
            f"{path} is not whole: `{printable(author)}` was cut off while it put its files there; repeat it with "
            "--overwrite, or give another folder."
        )


def holds_something(path: Path) -> bool:
    """Whether a folder that is to be written holds something; not where there is none yet.

    Raises:
        InputError: `path` is a file or a dangling link, or cannot be looked at.
    """
    with refusals(path):
        if path.exists() and not path.is_dir():
            raise InputError(f"{path} is a file: give a folder.")
        if path.is_symlink() and not path.exists():
            raise InputError(f"{path} is a link to {path.readlink()}, which does not exist: give another folder.")
        if not path.exists():
            return False
        unfinished = {folder.name for folder in _scratch_folders(_within(path.resolve()))}
        return any(entry.name not in unfinished for entry in path.iterdir())


def flush_to_disk(path: Path) -> None:
    """Wait until a file's contents, or the names in a folder, are on the disk and survive a loss of power."""
    if path.is_dir() and os.name != "posix":
        return  # Other systems open no folders, and keep their names in order by themselves.
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def refusals(path: Path, remedy: str = ROOM) -> Iterator[None]:
    """Turn OS errors raised while `path` is written into an `InputError` that names the file that failed.

    That is `path` (no permission, disk full), or another file that is read meanwhile.

    Args:
        path: The file or folder that is written.
        remedy: What to do where it cannot be written.
    """
    try:
        yield
    except OSError as error:
        reason, failed = error.strerror or str(error), error.filename
        if isinstance(failed, (str, bytes)) and not _belongs_to_output(Path(os.fsdecode(failed)), path):
            raise InputError(
                f"cannot open {os.fsdecode(failed)}: {reason}; check that it is there and may be read."
            ) from error
        raise InputError(f"cannot write {path}: {_with_remedy(error, path, reason, remedy)}.") from error


def _with_remedy(error: OSError, path: Path, reason: str, remedy: str) -> str:
    """Why a path cannot be written, and what to do; instead of making room, what helps where its name is at fault."""
    helps = ROOM
    if error.errno == errno.ENAMETOOLONG:
        helps = "give a shorter name"
    elif error.errno in (errno.ENOTDIR, errno.EEXIST) and (files := [p for p in path.parents if p.is_file()]):
        reason, helps = f"{files[0]} is a file", "give another place"
    return f"{reason}; {helps if remedy == ROOM else remedy}"


def _belongs_to_output(failed: Path, path: Path) -> bool:
    """Whether a file is `path`, in it, in its scratch folder, or one of the folders that `path` lies in."""
    failed, path = failed.absolute(), path.absolute()
    scratch = failed.is_relative_to(path.parent) and failed.relative_to(path.parent).parts[:1]
    in_scratch = bool(scratch) and scratch[0].startswith(scratch_prefix(path))
    return in_scratch or failed.is_relative_to(path) or path.is_relative_to(failed)


@contextmanager
def scratch_beside(path: Path, remedy: str = ROOM) -> Iterator[Path]:
    """A temporary folder on the same disk as `path`; OS errors inside become an `InputError`."""
    with refusals(path, remedy):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path)
        made = tempfile.TemporaryDirectory(dir=path.parent, prefix=scratch_prefix(path), suffix=SCRATCH)
        with made as scratch, FolderLock(Path(scratch)) as locked:
            _mark(Path(scratch), locked)
            try:
                yield Path(scratch)
            finally:
                _empty(Path(scratch))


def _remove(folder: Path) -> None:
    """Remove a temporary folder, its marker last."""
    with suppress(OSError):  # What cannot be removed stays, marked.
        _empty(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _empty(folder: Path) -> None:
    """Remove all but the marker, so that the rest is known as this program's if it is killed meanwhile."""
    for entry in folder.iterdir():
        if entry.name == MARKER:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Make a folder, unless it is there.

    Raises:
        InputError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {path}: {error.strerror or error}; choose another one.") from error


def scratch_prefix(path: Path) -> str:
    """How the names begin under which `path` is written, beside it, until it is complete."""
    return f".{path.name}-"


def _scratch_folders(path: Path) -> list[Path]:
    """The temporary folders of this program in which `path` is or was written; others of such names are not ours."""
    found = path.parent.glob(f"{escape(scratch_prefix(path))}{'?' * 8}{SCRATCH}")
    return [folder for folder in found if not folder.is_symlink() and _marker(folder) is not None]


def _mark(folder: Path, locked: bool) -> None:
    """Say in a temporary folder whose it is, and on which machine it is locked, if it is."""
    marker = {"written_by": AUTHOR, "process": os.getpid(), "locked_on": socket.gethostname() if locked else None}
    (folder / MARKER).write_text(json.dumps(marker) + "\n", encoding="utf-8")


def _marker(folder: Path) -> dict[str, Any] | None:
    """What `_mark` wrote; None if this program has not made the folder."""
    try:
        marker = read_json(folder / MARKER)
        return marker if marker["written_by"] == AUTHOR and {"process", "locked_on"} <= marker.keys() else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def remove_abandoned(path: Path) -> None:
    """Remove the temporary folders of processes of this machine that were killed while they wrote `path`.

    Whoever makes one locks it before he marks it, so that one that is marked as locked on this machine, and is not
    locked, has been left. Where a file system has no locks, and where other machines write, nothing is removed.
    """
    for folder in _scratch_folders(path):
        marker = _marker(folder)
        if marker is not None and marker["locked_on"] == socket.gethostname() and not is_locked(folder):
            _remove(folder)


def remove_scratch(path: Path, names: Iterable[str]) -> None:
    """Remove what writers of some files in a folder left there when they were killed; nobody may be writing them now.

    Args:
        path: The folder.
        names: The names of the files.
    """
    for name in names:
        for folder in _scratch_folders(path / name):
            _remove(folder)
        partial = re.compile(rf"{re.escape(scratch_prefix(Path(name)))}{PARTIAL_NAME}{re.escape(PARTIAL)}")
        for left in path.glob(f"{escape(scratch_prefix(Path(name)))}*{PARTIAL}"):
            if partial.fullmatch(left.name):
                with suppress(OSError):  # A folder is not ours.
                    left.unlink()
