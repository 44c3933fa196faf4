"""Python packages: which are installed, which are required, and which versions are known to work together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

NAME = "consistent4d_ns"
"""This package."""
SHOWN = ("torch", "triton", "nerfstudio", "diffusers", "transformers", "huggingface_hub", "av", "viser", "numpy")
"""Packages that are shown even if nothing is wrong with them."""
EXTRAS = ("prepare",)
"""Extras of this package whose packages are shown, too."""
PACKAGE = Path(__file__).parents[1]
CONSTRAINTS = (PACKAGE / "constraints.txt", PACKAGE.parent / "constraints.txt")
"""Where the list of versions that work together is: in an installed package, and in a clone of the repository."""


@dataclass(frozen=True)
class Package:
    """A package, as it is and as it should be."""

    name: str
    """Its name in the package index."""
    installed: str | None
    """The version that is installed, if any."""
    required: str | None
    """The versions that are required; None for a package that is not needed."""
    known: str | None
    """The version that was seen to work together with the others."""
    extra: str | None = None
    """The extra that needs it, if none of the presets does."""

    @property
    def fits(self) -> bool:
        """Whether a required version is installed; what only an extra needs may be missing."""
        if self.required is None:
            return True
        if self.installed is None:
            return self.extra is not None
        return Requirement(self.name + self.required).specifier.contains(self.installed, prereleases=True)


def packages() -> list[Package]:
    """The packages that this one requires, and others that matter."""
    declared = _declared()
    extras = {canonicalize_name(item.name): extra for extra in EXTRAS for item in _requirements(declared, extra)}
    required = {canonicalize_name(item.name): item for item in _requirements(declared)}
    required |= {canonicalize_name(item.name): item for extra in EXTRAS for item in _requirements(declared, extra)}
    known = {canonicalize_name(item.name): item for item in _requirements(_known_to_work())}
    names = {canonicalize_name(name): name for name in SHOWN}
    names |= {name: item.name for name, item in required.items() if name not in names}
    return [
        Package(
            name=shown,
            installed=_installed(name),
            required=str(required[name].specifier) if name in required else None,
            known=next((entry.version for entry in known[name].specifier), None) if name in known else None,
            extra=extras.get(name),
        )
        for name, shown in names.items()
    ]


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _declared() -> list[str]:
    """The requirements of this package; none if it is not installed but only on Python's path."""
    try:
        return metadata.requires(NAME) or []
    except metadata.PackageNotFoundError:
        return []


def _known_to_work() -> list[str]:
    """Lines of the list of versions that work together."""
    file = next((file for file in CONSTRAINTS if file.is_file()), None)
    return [] if file is None else file.read_text(encoding="utf-8").splitlines()


def _requirements(lines: Iterable[str], extra: str = "") -> list[Requirement]:
    """The requirements among some lines that apply here: those of all, or what only an extra adds."""
    found = []
    for line in lines:
        try:
            item = Requirement(line.partition(" #")[0])
        except InvalidRequirement:  # a comment
            continue
        always = item.marker is None or item.marker.evaluate({"extra": ""})
        with_extra = item.marker is None or item.marker.evaluate({"extra": extra})
        if with_extra and not (extra and always):
            found.append(item)
    return found
