"""Fetching priors from the Hugging Face hub, with one-line errors if that fails. Nothing slow is imported."""

from __future__ import annotations

import errno
import re
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING

from consistent4d_ns.errors import InputError
from consistent4d_ns.files.disks import check_space
from consistent4d_ns.guidance import bundled_prior
from consistent4d_ns.guidance.hub_cache import altered_files, cache_folder, cached, remove_files, snapshot, used_files
from consistent4d_ns.guidance.prior_files import STABLE_DIFFUSION, ZERO123, Layout, needed_files

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoSibling

ORIGINAL_PAGE = "https://github.com/cvlab-columbia/zero123"
"""Page that leads to the original authors' checkpoints."""
PUBLISHED = {
    "zero123-xl": "ashawkey/zero123-xl-diffusers",
    "stable-zero123": "ashawkey/stable-zero123-diffusers",
    "stable-diffusion": "stable-diffusion-v1-5/stable-diffusion-v1-5",
}
"""Hub ids of the priors that `consistent4d weights` fetches, by the names that it has for them."""
CACHE_REMEDY = "make room, or set HF_HOME to a folder with room that can be written"
"""What to do if the hub's cache cannot be written."""
REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)
"""Errors of the system that have to do with the disk, not with the network."""
PROBE_SECONDS = 5.0
"""Timeout for finding out whether the hub can be reached."""
OFFLINE = (
    "Offline, train consistent4d-mini or, on one image, consistent4d-image-mini: their small prior "
    f"(`--pipeline.guidance.prior {bundled_prior.NAME}`) comes with this package."
)
"""What to do without a Zero123 of the hub."""
TEXT_OFFLINE = (
    "The small prior that comes with this package reads an image, not a prompt: offline, make the object from an image "
    "with consistent4d-image-mini."
)
"""What to do without a text-to-image prior of the hub."""


class UnavailableError(Exception):
    """A prior cannot be downloaded; the reason in words, without the prior's name and a full stop."""


def is_hub_id(prior: str) -> bool:
    """Whether `prior` has the form owner/name, and not that of a checkpoint file."""
    named = re.fullmatch(r"[\w.-]*\w[\w.-]*/[\w.-]*\w[\w.-]*", prior) is not None
    return named and PurePath(prior).suffix not in (".ckpt", ".safetensors")


def check_not_address(name: str, option: str = "--pipeline.guidance.prior") -> None:
    """Raises: InputError: `name`, given with an option, is the address of a page of the hub; names its hub id."""
    match = re.match(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+)", name)
    if match is not None:
        raise InputError(f"{option} {name}: the address of a page; give the hub id {match[1]}, or a local copy.")


def get_command(prior: str) -> str:
    """The command that fetches a prior of the hub."""
    names = {hub_id: name for name, hub_id in PUBLISHED.items()}
    return f"consistent4d weights {names[prior]}" if prior in names else f"hf download {prior}"


def layout_of(published: str) -> Layout:
    """The layout of a prior in `PUBLISHED`, by its name there."""
    return STABLE_DIFFUSION if published == "stable-diffusion" else ZERO123


def missing_prior(prior: str, reason: str, layout: Layout = ZERO123) -> InputError:
    """The one-line error for a prior that is not on this machine: what is missing, and how to get it or do without."""
    reads_text = layout is STABLE_DIFFUSION
    example = prior if is_hub_id(prior) else PUBLISHED["stable-diffusion" if reads_text else "zero123-xl"]
    get = f"--pipeline.guidance.prior {prior}: {reason}. Get it with `{get_command(example)}` (about 5 GB in fp32, see "
    if reads_text:
        return InputError(
            f"{get}https://huggingface.co/{example}, also for its licence), or give --pipeline.guidance.prior "
            f"another hub id or a folder in Stable Diffusion's layout. {TEXT_OFFLINE}"
        )
    return InputError(
        f"{get}https://huggingface.co/{example}, also for its licence), or give a folder or the original .ckpt "
        f"({ORIGINAL_PAGE}). {OFFLINE}"
    )


def fetch(prior: str, layout: Layout = ZERO123) -> Path:
    """Local folder of the hub repository `prior`, downloaded if necessary.

    Raises:
        InputError: It is not on this machine and cannot be downloaded, or it is no prior in this layout.
    """
    try:
        return cached(prior, layout) or download(prior, layout)
    except UnavailableError as error:
        raise missing_prior(prior, str(error), layout) from error


def fetch_unaltered(prior: str, layout: Layout = ZERO123) -> tuple[Path, bool]:
    """Local folder of the hub repository `prior`, and whether it was already there; every file is what was published.

    Files of the cache that were altered or cut off are downloaded again. This reads all files.

    Raises:
        InputError: as `fetch`; or what arrives is not what the hub lists, which is then removed again.
    """
    folder = cached(prior, layout)
    altered = _remove_altered(folder, layout) if folder is not None else []
    if folder is not None and not altered:
        return folder, True
    try:
        folder = download(prior, layout)
        if altered := _remove_altered(folder, layout):
            names = ", ".join(file.relative_to(folder).as_posix() for file in altered)
            raise UnavailableError(f"what arrived as {names} is not what the hub lists, and was removed: try again")
    except UnavailableError as error:  # Not `missing_prior`, which names the command that has just failed.
        raise InputError(
            f"{prior}: {error}. If the hub cannot be reached from here, give a copy from elsewhere with "
            f"--pipeline.guidance.prior: {_elsewhere(layout)}"
        ) from error
    return folder, False


def _elsewhere(layout: Layout) -> str:
    """What a copy from elsewhere may be, and what works without one."""
    if layout is STABLE_DIFFUSION:
        return f"a folder. {TEXT_OFFLINE}"
    return f"a folder, or the original .ckpt ({ORIGINAL_PAGE}). {OFFLINE}"


def _remove_altered(folder: Path, layout: Layout) -> list[Path]:
    """Remove altered files of a prior in the cache, and tell which those were."""
    altered = altered_files(used_files(folder, layout))
    try:
        remove_files(altered)
    except OSError as error:
        raise _refused(error) from error
    return altered


def download(prior: str, layout: Layout = ZERO123) -> Path:
    """Download the hub repository `prior` into the hub's cache; returns its folder there.

    Whole files stay if it is interrupted, so that the next call fetches the others.

    Raises:
        UnavailableError: It cannot be downloaded.
        InputError: It is no prior in this layout; or there is no space, or no permission to write.
    """
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        raise UnavailableError("not in the hub's cache, and HF_HUB_OFFLINE is set, which has to be unset")
    if not _reachable(constants.ENDPOINT):
        reason = f"{constants.ENDPOINT} cannot be reached: check the network, or set HF_ENDPOINT to a mirror"
        raise UnavailableError(f"not in the hub's cache, and {reason}")
    try:
        listed = {file.rfilename: file.size or 0 for file in _listed_files(HfApi(), prior)}
        sizes = {name: listed[name] for name in needed_files(listed, prior, layout)}
        check_space(cache_folder(prior), _left_to_download(prior, sizes), CACHE_REMEDY)
        print(f"Downloading {prior}; its licence is on https://huggingface.co/{prior}", file=sys.stderr)
        return _download_files(prior, sizes)
    except InputError:
        raise
    except Exception as error:  # The client's errors share no base class but Exception, and differ between versions.
        if isinstance(error, OSError) and error.errno in REFUSALS:
            raise _refused(error) from error
        reason = str(error).strip().split("\n", 1)[0]
        raise UnavailableError(f"download failed ({reason})") from error


def _download_files(prior: str, sizes: Mapping[str, int]) -> Path:
    """Download files of these sizes one after the other; returns the folder that they are in.

    In this thread: the client's threads for whole repositories would go on after Ctrl-C until their files were there.
    It draws a bar for each file, but on a terminal only, so lines name those with weights.
    """
    from huggingface_hub import hf_hub_download

    path, parts = Path(), 0
    for number, (name, size) in enumerate(sizes.items(), start=1):
        if not name.endswith((".json", ".txt")):
            print(f"File {number} of {len(sizes)}: {name}, {size / 1e6:,.1f} MB", file=sys.stderr, flush=True)
        path, parts = Path(hf_hub_download(prior, name)), len(PurePosixPath(name).parts)
    return path.parents[parts - 1]


def _listed_files(hub: HfApi, prior: str) -> Sequence[RepoSibling]:
    return hub.model_info(prior, files_metadata=True).siblings or []


def _left_to_download(prior: str, sizes: Mapping[str, int]) -> int:
    """Bytes of those of the files that are not in the cache yet."""
    folder = snapshot(prior)
    return sum(size for name, size in sizes.items() if folder is None or not (folder / name).exists())


def _refused(error: OSError) -> InputError:
    """The one-line error for a cache that the system does not let us write to."""
    from huggingface_hub import constants

    return InputError(f"cannot write to {constants.HF_HUB_CACHE}: {error.strerror or error}; {CACHE_REMEDY}.")


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
