"""The camera vector that a Zero123 prior was trained with, from its files or else from its published name."""

from __future__ import annotations

import re
from pathlib import Path, PurePath
from typing import Literal, get_args

from consistent4d_ns.files.names import expanded
from consistent4d_ns.guidance import bundled_prior

CameraConvention = Literal["zero123", "stable-zero123"]
"""What the fourth entry of the camera vector is: the difference of distances, or Stable-Zero123's polar angle of the
input camera."""
CONVENTIONS: tuple[CameraConvention, ...] = get_args(CameraConvention)
PUBLISHED = re.compile(r"(?<![a-z0-9])(stable[-_ ]?)?zero[-_ ]?123(?![0-9])")
"""Names of Zero123 checkpoints and repositories (zero123-xl.ckpt, stable_zero123.ckpt, kxic/stable-zero123)."""
HUB_CACHE_FOLDER = re.compile(r"models--([^/]+?)--(.+)")
"""How the hub's cache names the folder of a repository: models--OWNER--NAME."""


def resolve_convention(
    asked: Literal["auto", "zero123", "stable-zero123"], prior: str, stored: CameraConvention | None = None
) -> tuple[CameraConvention, str]:
    """The camera convention of a prior, and in words why it is that one.

    Args:
        asked: `guidance.camera_convention`; "auto" leaves the decision to the prior.
        prior: The prior as the user names it: a hub id, a folder or a file.
        stored: What the prior's own files say.
    """
    if asked != "auto":
        return asked, "as set by guidance.camera-convention"
    if stored is not None:
        return stored, "as the prior's files say"
    if prior == bundled_prior.NAME:
        return bundled_prior.CONVENTION, "the one it was trained with"
    for name in _names(prior):
        if (convention := _convention_of(name)) is not None:
            return convention, f"from the name {name}"
    return "zero123", "the default: nothing in the prior's name or files says otherwise"


def _names(prior: str) -> list[str]:
    """Names in a prior's path that its publisher may have given, the most specific first.

    Where a link leads counts too, after the link's own name.
    """
    path = expanded(Path(prior))
    parts = list(reversed(PurePath(prior).parts))
    if path.is_symlink():
        parts += reversed(path.resolve().parts)
    return [match[2] if (match := HUB_CACHE_FOLDER.fullmatch(part)) else part for part in parts]


def _convention_of(name: str) -> CameraConvention | None:
    """The convention of a published name; None for a name that says nothing."""
    match = PUBLISHED.search(name.lower())
    if match is None:
        return None
    return "stable-zero123" if match[1] else "zero123"
