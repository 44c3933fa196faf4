"""Fetching priors from the Hugging Face hub, with one-line errors if that fails."""

from __future__ import annotations

import re
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath

from consistent4d_ns.errors import InputError
from consistent4d_ns.guidance import bundled_prior
from consistent4d_ns.guidance.diffusers_layout import needed_files, weight_files

ORIGINAL_PAGE = "https://github.com/cvlab-columbia/zero123"
"""Page that leads to the original authors' checkpoints."""
PROBE_SECONDS = 5.0
"""Timeout for finding out whether the hub can be reached."""


def is_hub_id(prior: str) -> bool:
    """Whether `prior` has the form owner/name, and not that of a checkpoint file."""
    named = re.fullmatch(r"[\w.-]*\w[\w.-]*/[\w.-]*\w[\w.-]*", prior) is not None
    return named and PurePath(prior).suffix not in (".ckpt", ".safetensors")


def check_not_address(prior: str) -> None:
    """Raises: InputError: `prior` is the address of a page of the hub; names its hub id."""
    match = re.match(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+)", prior)
    if match is not None:
        raise InputError(f"guidance.prior {prior}: the address of a page; give the hub id {match[1]}, or a local copy.")


def missing_prior(prior: str, reason: str) -> InputError:
    """The one-line error for a prior that is not on this machine: what is missing, and how to get it or do without."""
    example = prior if is_hub_id(prior) else "ashawkey/zero123-xl-diffusers"
    return InputError(
        f"guidance.prior {prior}: {reason}. Get it with `hf download {example}` (about 5 GB in fp32, see "
        f"https://huggingface.co/{example}), or give a folder or the original .ckpt ({ORIGINAL_PAGE}); licences "
        "differ between priors (Stable-Zero123 is non-commercial). The small prior that comes with this package works "
        f"offline: `--pipeline.guidance.prior {bundled_prior.NAME}`, or the method consistent4d-mini."
    )


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
    return f"guidance.prior {folder}: {what}, not a prior; give a hub id, or the folder of a snapshot{choices}."


def fetch(prior: str) -> Path:
    """Local folder of the hub repository `prior`, downloaded if necessary.

    Raises:
        InputError: It is not on this machine and cannot be downloaded, or it is not a Zero123 prior.
    """
    return _cached(prior) or _download(prior)


def _cached(prior: str) -> Path | None:
    """The repository's folder in the hub's cache, if all parts are there."""
    from huggingface_hub import try_to_load_from_cache

    index = try_to_load_from_cache(prior, "model_index.json")
    if not isinstance(index, str):
        return None
    folder = Path(index).parent
    try:
        weight_files({path.relative_to(folder).as_posix() for path in folder.glob("*/*")}, prior)
    except InputError:
        return None
    return folder


def _download(prior: str) -> Path:
    from huggingface_hub import HfApi, constants, snapshot_download

    if constants.HF_HUB_OFFLINE:
        raise missing_prior(prior, "not in the hub's cache, and HF_HUB_OFFLINE is set")
    if not _reachable(constants.ENDPOINT):
        raise missing_prior(prior, f"not in the hub's cache, and {constants.ENDPOINT} cannot be reached")
    try:
        files = needed_files(HfApi().list_repo_files(prior), prior)
        print(f"Downloading {prior}; its licence is on https://huggingface.co/{prior}", file=sys.stderr)
        return Path(snapshot_download(prior, allow_patterns=files))
    except InputError:
        raise
    except Exception as error:  # The client's errors share no base class but Exception, and differ between versions.
        reason = str(error).strip().split("\n", 1)[0]
        raise missing_prior(prior, f"download failed ({reason})") from error


def _reachable(address: str) -> bool:
    """Whether a server answers at `address`. The hub's own client retries for half a minute before it gives up."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=PROBE_SECONDS):
            return True
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as error:
        # Certificates are left to the hub's client, which may know more of them.
        return isinstance(error.reason, ssl.SSLError)
    except OSError:
        return False
