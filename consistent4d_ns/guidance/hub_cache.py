"""Priors in the Hugging Face hub's cache on this machine: whether they are there, whole and unaltered.

Nothing is downloaded, and nothing slow is imported.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from consistent4d_ns.errors import InputError
from consistent4d_ns.files.weight_files import damage_of_weights
from consistent4d_ns.guidance.prior_files import ZERO123, Layout, missing_files, names_in, weight_files


def cache_folder(prior: str) -> Path:
    """Folder of the repository `prior` in the hub's cache; it need not exist."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{prior.replace('/', '--')}"


def cached(prior: str, layout: Layout = ZERO123) -> Path | None:
    """The prior's folder in the hub's cache, if all of its files are there."""
    folder = snapshot(prior)
    if folder is None:
        return None
    try:
        return None if missing_files({"model_index.json", *names_in(folder)}, prior, layout) else folder
    except InputError:
        return None


def snapshot(prior: str) -> Path | None:
    """The prior's folder in the hub's cache, if a download has at least begun."""
    from huggingface_hub import try_to_load_from_cache

    index = try_to_load_from_cache(prior, "model_index.json")
    return Path(index).parent if isinstance(index, str) else None


def used_files(folder: Path, layout: Layout = ZERO123) -> list[Path]:
    """The files of a whole prior in `folder` that loading reads."""
    weights = weight_files(names_in(folder), str(folder), layout).values()
    others = [folder / name for name in layout.settings]
    parts = {folder / file.parent for file in weights} | {file.parent for file in others}
    settings = sorted({path for part in parts for path in part.glob("*.json")} | set(others))
    return [folder / "model_index.json", *settings, *(folder / file for file in weights)]


def damage_of_prior(folder: Path, layout: Layout = ZERO123) -> str | None:
    """What is wrong with the weight files in `folder` at a glance; None if nothing is (see `damage_of_weights`)."""
    for file in weight_files(names_in(folder), str(folder), layout).values():
        if (damage := damage_of_weights(folder / file)) is not None:
            return f"{file} {damage}"
    return None


def altered_files(files: Iterable[Path]) -> list[Path]:
    """Those of the cached `files` whose contents are not what was published.

    The cache keeps each file under the digest by which the hub lists it; where it keeps copies without that name, only
    beginning and length are looked at.
    """
    return [file for file in files if not _is_as_published(file)]


def _is_as_published(file: Path) -> bool:
    digest = file.resolve().name
    if re.fullmatch(r"[0-9a-f]{64}", digest):  # a large file: SHA-256 of its contents
        return _digest(hashlib.sha256(), file) == digest
    if re.fullmatch(r"[0-9a-f]{40}", digest):  # a small one: Git's name of its contents
        header = f"blob {file.stat().st_size}\0".encode()
        return _digest(hashlib.sha1(header, usedforsecurity=False), file) == digest
    return file.suffix == ".json" or damage_of_weights(file) is None


def _digest(digest: hashlib._Hash, file: Path) -> str:
    with file.open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def remove_files(files: Iterable[Path]) -> None:
    """Remove files from the cache: the names in the snapshot, and the contents that they stand for.

    Raises:
        OSError: one cannot be removed.
    """
    for file in files:
        file.resolve().unlink(missing_ok=True)
        file.unlink(missing_ok=True)


def check_not_cache(folder: Path) -> None:
    """Make sure that `folder` is not one of the hub's cache around priors: its root, or a repository's folder.

    Raises:
        InputError: It is; names the folders of priors, or hub ids, to give instead.
    """
    if (folder / "snapshots").is_dir():
        snapshots = sorted((folder / "snapshots").iterdir(), key=lambda snapshot: snapshot.stat().st_mtime)
        instead = [str(snapshot) for snapshot in snapshots[-1:]] + _cached_ids([folder])
        raise InputError(_cache_message(folder, "a repository's folder in the hub's cache", instead))
    for root in (folder, folder / "hub"):
        repositories = sorted(root.glob("models--*--*"))
        if repositories:
            zero123_first = sorted(_cached_ids(repositories), key=lambda name: "zero123" not in name.lower())
            raise InputError(_cache_message(folder, "the hub's cache", zero123_first[:3]))


def _cached_ids(repositories: Iterable[Path]) -> list[str]:
    """Hub ids of repositories' folders in the cache, which are named models--OWNER--NAME."""
    names = (repository.name.split("--", 2) for repository in repositories)
    return ["/".join(name[1:]) for name in names if len(name) == 3]


def _cache_message(folder: Path, what: str, instead: Sequence[str]) -> str:
    choices = f" ({' or '.join(instead)})" if instead else ""
    return (
        f"--pipeline.guidance.prior {folder}: {what}, not a prior; give a hub id, or the folder of a snapshot{choices}."
    )
